"""The plain way to ask Grok, to compare with: one conversation a call, ten calls at a time, a row for each result."""

import asyncio
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import httpx2
import orjson
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.texts import conversation_text
from prompts import Prompt
from topics import load_topics

MODEL = "grok-4.3"
MOST_TOKENS = 320
ITEM_ID = 100_000  # as wide as the service's ids: the prompts must be equally long


class Pace:
    """An ordinary limiter: calls start evenly, so many a second."""

    def __init__(self, calls_per_s: int) -> None:
        self._interval_s = 1 / calls_per_s
        self._next_at = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        starts_at = max(now, self._next_at)
        self._next_at = starts_at + self._interval_s
        await asyncio.sleep(starts_at - now)


class PlainGrok:
    def __init__(
        self, http: httpx2.AsyncClient, database: sqlite3.Connection, *, calls_per_s: int, places: int
    ) -> None:
        self._http = http
        self._database = database
        self._pace = Pace(calls_per_s)
        self._places = asyncio.Semaphore(places)
        self._prompt = Prompt({topic.id: topic.description for topic in load_topics()})

    async def work(self) -> None:
        """Analyze whatever is pending. Raises: httpx2.HTTPError, ValueError; it has nothing to try again with."""
        pending = self._database.execute("SELECT id, text FROM conversations WHERE status = 'pending'").fetchall()
        async with asyncio.TaskGroup() as tasks:
            for row_id, text in pending:
                tasks.create_task(self._analyze(row_id, text))

    async def _analyze(self, row_id: int, text: str) -> None:
        async with self._places:
            await self._pace.wait()
            answer = await self._http.post("chat/completions", json=self._request(text))
        answer.raise_for_status()
        reply = self._prompt.read_reply(answer.json()["choices"][0]["message"]["content"], expected=[ITEM_ID])
        analysis = reply.analyses[ITEM_ID].model_dump_json()
        self._database.execute(
            "UPDATE conversations SET status = 'done', analysis = ? WHERE id = ?", (analysis, row_id)
        )
        self._database.commit()

    def _request(self, text: str) -> dict[str, object]:
        return {
            "model": MODEL,
            "reasoning_effort": "none",
            "temperature": 0.3,
            "max_completion_tokens": MOST_TOKENS,
            "messages": self._prompt.messages({ITEM_ID: text}, nonce="0123456789ab"),
            "response_format": self._prompt.response_format,
        }


def open_database(file: Path, *, conversations: int) -> sqlite3.Connection:
    """SQLite as it comes, with so many pending conversations."""
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE conversations (id INTEGER PRIMARY KEY, text TEXT, status TEXT, analysis TEXT)")
    rows = [(conversation_text(number),) for number in range(conversations)]
    database.executemany("INSERT INTO conversations (text, status) VALUES (?, 'pending')", rows)
    database.commit()
    return database


async def analyze_all(url: str, database: sqlite3.Connection, *, calls_per_s: int, places: int) -> None:
    headers = {"authorization": "Bearer test"}
    async with httpx2.AsyncClient(base_url=f"{url}/", headers=headers, timeout=60, trust_env=False) as http:
        await PlainGrok(http, database, calls_per_s=calls_per_s, places=places).work()


def main(
    url: Annotated[str, typer.Option(help="Where chat/completions is.")],
    db: Annotated[Path, typer.Option(help="The SQLite file; it is made.")],
    conversations: Annotated[int, typer.Option(help="How many there are to analyze.")] = 100,
    calls_per_s: Annotated[int, typer.Option(help="Calls started in a second.")] = 10,
    places: Annotated[int, typer.Option(help="Calls in flight at a time.")] = 10,
) -> None:
    """Analyze conversations the plain way, and print how many were done."""
    with closing(open_database(db, conversations=conversations)) as database:
        asyncio.run(analyze_all(url, database, calls_per_s=calls_per_s, places=places))
        [(done,)] = database.execute("SELECT count(*) FROM conversations WHERE status = 'done'")
    print(orjson.dumps({"done": done}).decode())


if __name__ == "__main__":
    typer.run(main)
