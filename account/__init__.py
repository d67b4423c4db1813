"""Our account with xAI: what calls may cost and have cost, and whether the key and the model are good."""

from account.key_check import KeyCheck, Verdict
from account.ledger import FreeCalls, Ledger, SpendingLimits, next_midnight, ticks_of_one

__all__ = ["FreeCalls", "KeyCheck", "Ledger", "SpendingLimits", "Verdict", "next_midnight", "ticks_of_one"]
