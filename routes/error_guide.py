"""Every error that a client can see: when it comes, what to do about it, and what it looks like."""

from dataclasses import dataclass

from errors import (
    BodyTooLarge,
    Conflict,
    DatabaseBusy,
    Draining,
    Forbidden,
    HeadTooLarge,
    IdempotencyMismatch,
    InsightsError,
    InvalidSchema,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RateLimitExceeded,
    SlowRequest,
    StorageFull,
    StorageUnusable,
    Unauthorized,
    UnsupportedMediaType,
)
from problems import internal_error


@dataclass(frozen=True, slots=True)
class KnownError:
    """An error as the documents tell it; `error` is one of its kind."""

    error: InsightsError
    when: str
    remedy: str


KNOWN_ERRORS = (
    KnownError(
        InvalidSchema("Missing required field: text"),
        "The body, a parameter or a header does not validate.",
        "Mend what `details` names; sent again as it was, it fails again.",
    ),
    KnownError(
        Unauthorized("Send your API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."),
        "API keys are configured, and none of them came with the request; or it has expired or was revoked.",
        "Send a key in one of the two headers.",
    ),
    KnownError(
        Forbidden("This needs a key with the scope `read`, which yours does not have; ask the operator for one."),
        "The key is known, and does not open this operation.",
        "Use a key with the scope that `details` names.",
    ),
    KnownError(
        NotFound("There is no conversation with this id."),
        "Nothing is there under this path or id.",
        "Take ids from answers of the service.",
    ),
    KnownError(
        MethodNotAllowed("This path does not take this method; see /docs."),
        "The path is there, and does not take this method.",
        "Use one of those that the header `Allow` names.",
    ),
    KnownError(
        SlowRequest("The body did not arrive within 15 s; send it again."),
        "The headers or the body came too slowly.",
        "Send it again, less at a time if the line is slow.",
    ),
    KnownError(
        Conflict("This external_id was stored with other content; use another, or send the same content."),
        "What is stored does not allow it: an `external_id` with other content, a state that is another.",
        "Read what is stored, then decide; sent again as it was, it fails again.",
    ),
    KnownError(
        BodyTooLarge("The body may have at most 1 MB; send less at a time."),
        "The body is larger than 1 MB, in bulk 8 MB.",
        "Send less at a time.",
    ),
    KnownError(
        HeadTooLarge("Headers may have at most 128 KB; send fewer or shorter ones."),
        "All headers together are larger than 128 KB.",
        "Send fewer or shorter ones; cookies are not needed here.",
    ),
    KnownError(
        UnsupportedMediaType(
            "Send the header `Content-Type: application/json` and UTF-8; "
            "with curl: -H 'Content-Type: application/json'."
        ),
        "The header `Content-Type` is missing, or names what is not taken here.",
        "Send the header that `details` names.",
    ),
    KnownError(
        IdempotencyMismatch("This Idempotency-Key was used with another body; use a new key for a new request."),
        "The `Idempotency-Key` came with another body within the last 24 hours.",
        "Use a new key for a new request.",
    ),
    KnownError(
        RateLimitExceeded("Too many requests; send this one again after the wait.", retry_after_s=1),
        "More requests came than the limit allows.",
        "Wait `retry_after` seconds, then send it again.",
    ),
    KnownError(
        internal_error(),
        "A bug of the service.",
        "Report the `request_id`; sending again may help.",
    ),
    KnownError(
        Overloaded("The database does not answer; send the request again.", retry_after_s=2),
        "The service cannot do this now; `details` says why.",
        "Wait `retry_after` seconds, then send it again.",
    ),
    KnownError(
        DatabaseBusy("The database is locked by another process; send the request again.", retry_after_s=1),
        "Another process holds the database.",
        "Wait `retry_after` seconds, then send it again.",
    ),
    KnownError(
        StorageUnusable(
            "The database file cannot be used (it is read-only, damaged, or no database); see the log.",
            retry_after_s=30,
        ),
        "The database's file cannot be used: its disk or its rights.",
        "Tell the operator; nothing was stored.",
    ),
    KnownError(
        Draining(),
        "The service is shutting down.",
        "Wait `retry_after` seconds, then send it again.",
    ),
    KnownError(
        StorageFull("The disk is full; free space, the service resumes by itself.", retry_after_s=30),
        "The disk is full; reading still works.",
        "Tell the operator; nothing was stored.",
    ),
)
