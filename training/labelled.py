"""Read labelled texts: `.jsonl`, `.jsonl.gz`, `.json` and `.csv`, as `evaluate.py` and `train.py` take them."""

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABELS = ("negative", "neutral", "positive")

# What the airline set calls its reasons, in our vocabulary; the reasons left out say too little.
AIRLINE_TOPICS = {
    "Customer Service Issue": "customer_service",
    "Flight Attendant Complaints": "customer_service",
    "Late Flight": "travel_disruption",
    "Cancelled Flight": "travel_disruption",
    "Lost Luggage": "travel_disruption",
    "Damaged Luggage": "travel_disruption",
    "Bad Flight": "travel_disruption",
    "longlines": "travel_disruption",
}


@dataclass(frozen=True, slots=True)
class Labelled:
    text: str
    label: str
    topics: frozenset[str] | None  # None: nobody labelled the topics of this text


def read_labelled(path: Path) -> list[Labelled]:
    """Every row of a file that has a text and one of the three labels."""
    rows = (_labelled(fields) for fields in _rows(path))
    return [row for row in rows if row is not None]


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            yield from csv.DictReader(file)
    elif path.suffix == ".json":
        yield from json.loads(path.read_text(encoding="utf-8"))
    else:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        yield from (json.loads(line) for line in content.decode("utf-8").split("\n") if line.strip())


def _labelled(fields: Mapping[str, Any]) -> Labelled | None:
    label = fields.get("label") or fields.get("sentiment") or fields.get("airline_sentiment") or ""
    text = fields.get("text")
    if not text or str(label).lower() not in LABELS:
        return None
    return Labelled(str(text), str(label).lower(), _topics(fields))


def _topics(fields: Mapping[str, Any]) -> frozenset[str] | None:
    if isinstance(fields.get("topics"), list):
        return frozenset(fields["topics"])
    reason = AIRLINE_TOPICS.get(str(fields.get("negativereason") or ""))
    return frozenset({reason}) if reason else None
