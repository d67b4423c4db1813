"""What clients do all day while a disk is full or a file is locked: every kind of reading and of writing."""

from tests.harness import Json

READS = (  # `kept` is the id of a conversation that is there
    "/health",
    "/metrics",
    "/status/summary",
    "/api/v1/conversations",
    "/api/v1/conversations/{kept}",
    "/api/v1/insights?q=parcel&facet=topic",
    "/api/v1/insights?format=csv",
    "/api/v1/topics",
    "/api/v1/insights/trends",
    "/api/v1/quality",
    "/api/v1/reanalyses",
)
WRITES: tuple[tuple[str, str, Json | None], ...] = (
    ("POST", "/api/v1/conversations", {"text": "My parcel is late again " * 300}),
    ("POST", "/api/v1/conversations/bulk", {"conversations": [{"text": "Charged twice " * 500}] * 100}),
    ("POST", "/api/v1/conversations/retry", None),
    ("DELETE", "/api/v1/conversations?author=nobody", None),
    ("DELETE", "/api/v1/conversations/{erased}", None),
    ("PUT", "/api/v1/conversations/{kept}/correction", {"sentiment": "negative"}),
)
