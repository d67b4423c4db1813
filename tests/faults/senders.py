"""A client that sends without a pause and remembers what was acknowledged: the oracle of what may not be lost."""

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import httpx2

ONE, BULK = "/api/v1/conversations", "/api/v1/conversations/bulk"
BULK_ITEMS = 25
TEXTS = [
    "My parcel is late again",
    "Love it, thanks!",
    "Charged twice, refund me",
    "https://t.co/x",
    "App crashes on login",
]


@dataclass
class Sender:
    """Sends without a pause until the service dies; what was sent and never answered goes first the next time."""

    name: str
    acknowledged: dict[str, str] = field(default_factory=dict[str, str])  # external id -> conversation id
    unanswered: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    complaints: list[str] = field(default_factory=list[str])
    lost_answers: int = 0
    _count: int = 0

    def send_until_it_dies(self, url: str) -> None:
        with httpx2.Client(base_url=url, timeout=10, trust_env=False) as client:
            try:
                while True:
                    self._send(client)
            except httpx2.TransportError:
                self.lost_answers += bool(self.unanswered)

    def _send(self, client: httpx2.Client) -> None:
        items = self.unanswered or self._next_items()
        self.unanswered = items
        if len(items) == 1:
            answer = client.post(ONE, json=items[0])
            results = [answer.json()]
        else:
            answer = client.post(BULK, json={"conversations": items})
            results = answer.json().get("results", [])
        if answer.status_code != 202:
            self.complaints.append(answer.text)
        for item, result in zip(items, results, strict=True):
            earlier = self.acknowledged.setdefault(item["external_id"], result["conversation_id"])
            if earlier != result["conversation_id"]:
                self.complaints.append(f"{item['external_id']} was acknowledged as two rows")
        self.unanswered = []

    def _next_items(self) -> list[dict[str, Any]]:
        size = 1 if self._count % 3 else BULK_ITEMS
        numbers = range(self._count, self._count + size)
        self._count += size
        return [{"text": TEXTS[number % 5], "external_id": f"{self.name}-{number}"} for number in numbers]


@contextmanager
def sending(senders: Sequence[Sender], *urls: str) -> Generator[None, None, None]:
    """Each sends on a thread of its own, to one of these services; leave the block once those are dead."""
    threads = [
        threading.Thread(target=sender.send_until_it_dies, args=(url,))
        for sender, url in zip(senders, cycle(urls), strict=False)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def acknowledged_by(senders: Sequence[Sender]) -> dict[str, str]:
    """Conversation ids by external id."""
    return {key: one for sender in senders for key, one in sender.acknowledged.items()}
