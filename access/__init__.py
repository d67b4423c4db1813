"""Who may do what: keys by their SHA-256, what each of them opens, and the file that they can be changed in."""

from access.key_ring import Caller, KeyRing, open_keys
from access.keys import KeysInvalid, Scope

__all__ = ["Caller", "KeyRing", "KeysInvalid", "Scope", "open_keys"]
