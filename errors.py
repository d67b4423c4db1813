"""Every error the service raises on purpose, as one tree.

InsightsError                      status  code
  InvalidSchema                    400     invalid_schema
  Unauthorized                     401     unauthorized
  Forbidden                        403     forbidden
  NotFound                         404     not_found
  MethodNotAllowed                 405     method_not_allowed
  Conflict                         409     conflict
  BodyTooLarge                     413     body_too_large
  UnsupportedMediaType             415     unsupported_media_type
  IdempotencyMismatch              422     idempotency_mismatch
  RateLimitExceeded                429     rate_limit_exceeded
  SlowRequest                      408     request_timeout
  HeadTooLarge                     431     head_too_large
  Overloaded                       503     overloaded
    DatabaseBusy                   503     database_busy
    StorageUnusable                503     storage_unusable
    Draining                       503     draining
  StorageFull                      507     storage_full
  GrokError                                what an exchange with xAI can end in
    GrokOutage                             nothing is wrong with the row: it waits, no attempt is spent
      GrokAuth                     key missing, wrong or not allowed
      GrokBilling                  credits or spending limit
      GrokConfig                   model or address wrong
      GrokThrottled                429: the whole lane waits
      GrokBudgetReached            ours: GROK_DAILY_BUDGET_USD is spent, until midnight UTC
      GrokUnavailable              5xx, network, deadline
        GrokLaneShut               nothing was sent: a told wait, an open breaker, replicas that use the whole rate
        GrokAtCapacity             429 of another kind: the model is busy, for longer
    GrokRejection                          the pack or its text is at fault
      GrokTooLarge                 split it; one text that does not fit fails
        GrokTooDear                nothing was sent: the pack does not fit into the day's budget, fewer texts may
      GrokRefused                  content safety: split it; the one text fails
      GrokRequestRejected          any other 4xx: our bug, the rows fail
    GrokReplyInvalid                       an answer that cannot be used: again alone, then failed
    GrokParameterRefused                   drop the parameter and send again
"""

from typing import ClassVar


class InsightsError(Exception):
    """An error with an HTTP status, a code from the contract, and a sentence that says what to do next.

    `details` reaches the client: it never holds input, SQL, paths or secrets.
    `retry_after_s` is set where a later try can succeed: whole seconds, >= 1.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, details: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(details)
        self.details = details
        self.retry_after_s = retry_after_s


class InvalidSchema(InsightsError):
    status, code = 400, "invalid_schema"


class Unauthorized(InsightsError):
    status, code = 401, "unauthorized"


class Forbidden(InsightsError):
    status, code = 403, "forbidden"


class NotFound(InsightsError):
    status, code = 404, "not_found"


class SlowRequest(InsightsError):
    status, code = 408, "request_timeout"


class HeadTooLarge(InsightsError):
    status, code = 431, "head_too_large"


class MethodNotAllowed(InsightsError):
    status, code = 405, "method_not_allowed"


class Conflict(InsightsError):
    status, code = 409, "conflict"


class BodyTooLarge(InsightsError):
    status, code = 413, "body_too_large"


class UnsupportedMediaType(InsightsError):
    status, code = 415, "unsupported_media_type"


class IdempotencyMismatch(InsightsError):
    status, code = 422, "idempotency_mismatch"


class RateLimitExceeded(InsightsError):
    status, code = 429, "rate_limit_exceeded"


class Overloaded(InsightsError):
    status, code = 503, "overloaded"

    def __init__(self, details: str, *, retry_after_s: int = 1) -> None:
        super().__init__(details, retry_after_s=retry_after_s)


class DatabaseBusy(Overloaded):
    code = "database_busy"


class StorageUnusable(Overloaded):
    code = "storage_unusable"


class Draining(Overloaded):
    code = "draining"

    def __init__(self) -> None:
        super().__init__("The service is shutting down; send the request again in a moment.")


class StorageFull(InsightsError):
    status, code = 507, "storage_full"


class GrokError(InsightsError):
    """An exchange with xAI that gave no value; `raw_answer` is what came back, redacted and cut, when something did."""

    status, code = 503, "grok_error"
    was_call: ClassVar[bool] = True  # False: nothing was sent, and nothing is learnt of xAI

    def __init__(self, details: str, *, retry_after_s: int | None = None, raw_answer: str | None = None) -> None:
        super().__init__(details, retry_after_s=retry_after_s)
        self.raw_answer = raw_answer


class GrokOutage(GrokError):
    code = "grok_outage"


class GrokAuth(GrokOutage):
    code = "grok_auth"


class GrokBilling(GrokOutage):
    code = "grok_billing"


class GrokConfig(GrokOutage):
    code = "grok_config"


class GrokThrottled(GrokOutage):
    code = "grok_throttled"


class GrokBudgetReached(GrokOutage):
    code = "grok_budget_reached"
    was_call = False


class GrokUnavailable(GrokOutage):
    code = "grok_unavailable"


class GrokLaneShut(GrokUnavailable):
    code = "grok_lane_shut"
    was_call = False


class GrokAtCapacity(GrokUnavailable):
    code = "grok_at_capacity"


class GrokRejection(GrokError):
    code = "grok_rejection"


class GrokTooLarge(GrokRejection):
    code = "too_large"


class GrokTooDear(GrokTooLarge):
    code = "too_dear"
    was_call = False


class GrokRefused(GrokRejection):
    code = "content_filtered"


class GrokRequestRejected(GrokRejection):
    code = "request_rejected"


class GrokReplyInvalid(GrokError):
    code = "reply_invalid"


class GrokParameterRefused(GrokError):
    code = "parameter_refused"
