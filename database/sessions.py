"""What a unit of work is handed: the type says whether it may write."""

from typing import NewType

from sqlalchemy import Connection

ReadSession = NewType("ReadSession", Connection)  # queries take this
WriteSession = NewType("WriteSession", ReadSession)  # store takes this: handing it a ReadSession does not type-check
