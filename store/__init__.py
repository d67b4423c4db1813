"""Every statement that writes, and with it every move of a conversation from one status to the next.

    accept -> pending --claim_batch--> processing --save_outcomes--> completed | failed | skipped
                 ^                          |
                 |<---- released, or the owner died (release_abandoned)
                 |<---- retry_failed ------------------------------ failed
                 |<---- requeue (read again; the insight stays) --- completed

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
from store.correcting import correct, withdraw_correction
from store.erasing import (
    INDEXES_OF_NAMES,
    Erased,
    clear_mark,
    erase_conversations,
    forget_orders_of,
    ids_accepted_before,
    ids_of_author,
    make_anew,
    merge_words,
)
from store.reanalyzing import Step, end_reanalysis, order_reanalysis, requeue
from store.renaming import rename_topics
from store.spending import (
    ON_THE_WAY,
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
    "INDEXES_OF_NAMES",
    "MAX_RESCUES",
    "ON_THE_WAY",
    "Accepted",
    "BudgetReached",
    "Claim",
    "Completed",
    "Erased",
    "Failed",
    "Idempotency",
    "Outcome",
    "Released",
    "Reservation",
    "Reserved",
    "Settlement",
    "Skipped",
    "Step",
    "Submission",
    "WindowFull",
    "accept",
    "add_tallies",
    "cancel_call",
    "charge_abandoned",
    "claim_batch",
    "clear_mark",
    "correct",
    "end_reanalysis",
    "erase_conversations",
    "forget_orders_of",
    "ids_accepted_before",
    "ids_of_author",
    "make_anew",
    "merge_words",
    "order_reanalysis",
    "purge_cache",
    "purge_idempotency_keys",
    "release_abandoned",
    "rename_topics",
    "renew_leases",
    "requeue",
    "reserve_call",
    "retry_conversation",
    "retry_failed",
    "save_outcomes",
    "settle_call",
    "withdraw_correction",
]
