"""What xAI's HTTP interface means: the wire format, the table of errors, the price list; no I/O but the list's file."""

from xai.prices import PRICES_PATH, TICKS_PER_USD, PriceList, PricesInvalid, Usage
from xai.replies import classify, told_wait_s
from xai.wire import SENDING, SENT, Completion, WireRequest, is_error, read_completion

__all__ = [
    "PRICES_PATH",
    "SENDING",
    "SENT",
    "TICKS_PER_USD",
    "Completion",
    "PriceList",
    "PricesInvalid",
    "Usage",
    "WireRequest",
    "classify",
    "is_error",
    "read_completion",
    "told_wait_s",
]
