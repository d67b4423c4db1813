"""HTTP in and out: each handler reads the request, calls one function of the store or the queries, and answers."""

from routes.application import ROUTERS, make_application
from routes.exporting import Files
from routes.shared import State
from routes.streams import Streams

__all__ = ["ROUTERS", "Files", "State", "Streams", "make_application"]
