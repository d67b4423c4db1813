"""Makes docs/API.md, openapi.json and the document's examples from sessions that it runs (`make api-docs`)."""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fastapi import FastAPI

import routes
import store
from database import Database, WriteSession
from docs.api_page import Played, make_page
from docs.api_sessions import Exchange, Replay, read_chapters
from errors import GrokReplyInvalid
from routes.openapi import EXAMPLES_PATH, Answer, Body, Document, Examples, find_operation, make_document
from schemas import ConversationIn
from store import Failed, Submission
from tests.harness import ROOT, Service, running_service

SESSIONS = ROOT / "docs" / "sessions"
PAGE_PATH = ROOT / "docs" / "API.md"
DOCUMENT_PATH = ROOT / "openapi.json"
NO_CONTENT = 204  # has nothing to show
_ONE_AT_A_TIME = {"GROK_MAX_CONCURRENCY": "1", "GROK_PACK_SIZE": "50"}  # what is done is then the same in every run


def main() -> None:
    for path, text in make_documents().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


def make_documents() -> dict[Path, str]:
    """Each file that is made, with its text; the same in every run."""
    with documented_service() as service:
        replay = Replay(service.url)
        played = [
            Played(chapter, tuple(replay.run(command) for _, command in chapter.parts))
            for chapter in read_chapters(SESSIONS)
        ]
    app = make_app()
    plain = make_document(app, {})
    examples = {one.chapter.name: examples_of(plain, one.chapter.name, one.exchanges) for one in played}
    examples = {name: given for name, given in examples.items() if given["answers"]}
    document = make_document(app, examples)
    return {
        EXAMPLES_PATH: _to_text(examples, sort_keys=False),
        DOCUMENT_PATH: _to_text(document, sort_keys=True),
        PAGE_PATH: make_page(document, played),
    }


def make_app() -> FastAPI:
    """The application as far as its document goes: nothing is opened."""

    @asynccontextmanager
    async def never_served(_app: FastAPI) -> AsyncGenerator[routes.State, None]:
        raise NotImplementedError
        yield

    return routes.make_application(never_served)


@contextmanager
def documented_service() -> Generator[Service, None, None]:
    """The service that sessions run against: offline, fresh, and with one conversation that failed."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(leave_a_failed_conversation(Path(folder) / "insights.db"))
        with running_service(Path(folder), **_ONE_AT_A_TIME) as service:
            yield service


def examples_of(document: Document, operation_id: str, exchanges: Sequence[Exchange]) -> Examples:
    """What an operation was sent and answered, the first of each kind; other requests of its chapter do not count."""
    bodies: dict[str, Body] = {}
    answers: dict[tuple[int, str, str], Answer] = {}
    for one in exchanges:
        if find_operation(document, one.method, one.path) != operation_id or one.status == NO_CONTENT:
            continue
        if one.status < 400 and one.sent is not None:
            media_type, body = one.sent
            bodies.setdefault(media_type, {"media_type": media_type, "value": body})
        code = one.value["error"] if one.status >= 400 else ""
        answer: Answer = {"status": one.status, "media_type": one.media_type, "value": one.value}
        answers.setdefault((one.status, one.media_type, code), answer)
    return {"bodies": list(bodies.values()), "answers": list(answers.values())}


async def leave_a_failed_conversation(file: Path) -> None:
    """As the service leaves one when Grok's answers cannot be used; the offline analyzer's always can."""
    database = Database.connect(f"sqlite:///{file}")
    await database.open()
    try:
        await database.write(_fail_one)
    finally:
        await database.close()


def _fail_one(session: WriteSession) -> None:
    now = datetime.now(UTC)
    sent_at = datetime(2025, 1, 19, 16, 5, tzinfo=UTC)
    conversation = ConversationIn(text="Where is my refund?", author="customer77", timestamp=sent_at)
    store.accept(session, submissions=[Submission([conversation])], now=now)
    [claim] = store.claim_batch(session, limit=1, now=now, lease=timedelta(minutes=1))
    store.save_outcomes(
        session, [Failed(claim, GrokReplyInvalid.code, "The answer cannot be used: the answer is not JSON.")], now=now
    )


def _to_text(value: object, *, sort_keys: bool) -> str:
    return json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
