"""Copies of a SQLite database: made while the service runs, checked, and put back in its place.

make:     VACUUM INTO <file>.part --> fsync --> checked --> <file>
restore:  checked --> copied beside the database --> checked --> the old one kept --> in its place
"""

from backups.checking import Refused, check
from backups.making import make
from backups.restoring import restore
from backups.vacuuming import vacuum

__all__ = ["Refused", "check", "make", "restore", "vacuum"]
