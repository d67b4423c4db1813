"""What keeps the service going, and what tests bring it down with: loops, their supervisor, failpoints."""

from survival.failpoints import FAILPOINTS, FailpointReached, arm, parse_failpoints, pass_by
from survival.loops import survive
from survival.supervisor import Supervisor

__all__ = [
    "FAILPOINTS",
    "FailpointReached",
    "Supervisor",
    "arm",
    "parse_failpoints",
    "pass_by",
    "survive",
]
