"""Every statement that writes, and with it every move of a conversation from one status to the next.

    accept -> pending --claim_batch--> processing --save_outcomes--> completed | failed | skipped
                 ^                          |
                 |<---- released, or the owner died (release_abandoned)
                 |<---- retry_failed ------------------------------ failed

An outcome is saved only under the `lease_epoch` it was claimed with (the fence): who lost its claim changes nothing.
"""

from store.accepting import (
    IDEMPOTENCY_TTL,
    Accepted,
    Idempotency,
    Submission,
    accept,
    purge_idempotency_keys,
)
from store.renaming import rename_topics
from store.spending import (
    BudgetReached,
    Reservation,
    Reserved,
    Settlement,
    WindowFull,
    cancel_call,
    charge_abandoned,
    reserve_call,
    settle_call,
)
from store.tallies import add_tallies
from store.working import (
    MAX_RESCUES,
    Claim,
    Completed,
    Failed,
    Outcome,
    Released,
    Skipped,
    claim_batch,
    purge_cache,
    release_abandoned,
    renew_leases,
    retry_conversation,
    retry_failed,
    save_outcomes,
)

__all__ = [
    "IDEMPOTENCY_TTL",
    "MAX_RESCUES",
    "Accepted",
    "BudgetReached",
    "Claim",
    "Completed",
    "Failed",
    "Idempotency",
    "Outcome",
    "Released",
    "Reservation",
    "Reserved",
    "Settlement",
    "Skipped",
    "Submission",
    "WindowFull",
    "accept",
    "add_tallies",
    "cancel_call",
    "charge_abandoned",
    "claim_batch",
    "purge_cache",
    "purge_idempotency_keys",
    "release_abandoned",
    "rename_topics",
    "renew_leases",
    "reserve_call",
    "retry_conversation",
    "retry_failed",
    "save_outcomes",
    "settle_call",
]
