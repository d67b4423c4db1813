"""What every error is answered with."""

from typing import NotRequired

from typing_extensions import TypedDict


class Problem(TypedDict):
    """RFC 9457 problem details; `error` and `details` are the members to program against."""

    type: str
    title: str
    status: int
    detail: str
    error: str
    details: str
    request_id: NotRequired[str]
    retry_after: NotRequired[int]
