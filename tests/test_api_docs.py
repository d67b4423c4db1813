"""docs/API.md and openapi.json are what the service answers; the page's own commands, run again, say the same."""

import re
from collections.abc import Generator
from datetime import date
from pathlib import Path

import pytest
from pydantic import JsonValue

from docs.api_page import slug_of, type_of
from docs.api_sessions import Exchange, Replay, SessionFailed, Steady, lay_out, read_chapters
from docs.make_api import PAGE_PATH, SESSIONS, documented_service, examples_of, make_app, make_documents
from routes.openapi import Document, make_document, operations_of
from tests.harness import ROOT

PAGE = PAGE_PATH.read_text(encoding="utf-8")
SHOWN = re.findall(r"```bash\n(.*?)```\n\n```http\n(.*?)```", PAGE, flags=re.DOTALL)
PLAIN = make_document(make_app(), {})
REMEDY = "run make api-docs, look at what changed, and commit it"


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    return make_documents()


@pytest.fixture(scope="module")
def replay() -> Generator[Replay]:
    with documented_service() as service:
        yield Replay(service.url)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("name", ["routes/examples.json", "openapi.json", "docs/API.md"])
def test_what_is_made_from_the_service_is_up_to_date(name: str, made: dict[Path, str]) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == made[ROOT / name], REMEDY


@pytest.mark.integration
@pytest.mark.slow
def test_every_command_of_the_page_answers_what_the_page_shows(replay: Replay) -> None:
    wrong = [command for command, shown in SHOWN if replay.run(command).shown() != shown]

    assert len(SHOWN) == PAGE.count("```bash\n") >= len(list(operations_of(PLAIN)))
    assert not wrong, REMEDY


@pytest.mark.unit
def test_every_operation_has_its_chapter() -> None:
    chapters = [chapter.name for chapter in read_chapters(SESSIONS)]

    assert sorted(chapters) == sorted(
        ["opening", *(operation["operationId"] for _, _, operation in operations_of(PLAIN))]
    )


@pytest.mark.unit
def test_the_contents_lead_to_headings() -> None:
    anchors = {slug_of(heading) for heading in re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)}

    targets = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert targets
    assert targets <= anchors


@pytest.mark.unit
def test_the_page_is_markdown_without_html() -> None:
    words = re.sub(r"```.*?```|`[^`]*`", "", PAGE, flags=re.DOTALL)

    assert not re.findall(r"<[a-zA-Z/!]", words)
    assert "[[" not in words


@pytest.mark.unit
def test_the_same_id_has_the_same_stand_in() -> None:
    steady = Steady(date(2026, 3, 1))
    one, other = "conv_" + "a" * 32, "conv_" + "b" * 32

    first, second, again = (steady(text) for text in (one, other, f'{{"id":"{one}"}}'))

    assert first != second
    assert again == f'{{"id":"{first}"}}'


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param('"2026-03-01T07:08:09.123Z"', '"2025-01-22T09:00:00Z"', id="a moment of the run"),
        pytest.param('"2026-02-28T23:59:59Z"', '"2025-01-22T09:00:00Z"', id="a run past midnight"),
        pytest.param('"2026-03-01"', '"2025-01-22"', id="the day of the run"),
        pytest.param('"2025-01-20T10:00:00Z"', '"2025-01-20T10:00:00Z"', id="a time that was sent"),
        pytest.param("2026-99-99", "2026-99-99", id="no day at all"),
        pytest.param('{"request_id":"abc-1"}', '{"request_id":"5f1c0e7a92d4-2a"}', id="a request id"),
        pytest.param('{"finished_per_second":3.75}', '{"finished_per_second":0.2}', id="a rate"),
    ],
)
def test_what_varies_is_replaced(text: str, shown: str) -> None:
    assert Steady(date(2026, 3, 1))(text) == shown


@pytest.mark.unit
def test_a_cursor_is_the_same_in_the_body_and_in_the_link() -> None:
    steady = Steady(date(2026, 3, 1))

    body, link = steady('{"next_cursor":"MjAyNS0wMQ"}'), steady("/insights?limit=1&cursor=MjAyNS0wMQ>")

    assert re.findall(r'"next_cursor":"([\w-]+)"', body) == re.findall(r"cursor=([\w-]+)>", link)
    assert "MjAyNS0wMQ" not in body


@pytest.mark.unit
@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param({"a": [1, None]}, '{"a": [1, null]}', id="what fits stays on a line"),
        pytest.param({"a": "x" * 110}, '{\n  "a": "' + "x" * 110 + '"\n}', id="what does not goes over lines"),
        pytest.param(["x" * 60, "ü" * 60], '[\n  "' + "x" * 60 + '",\n  "' + "ü" * 60 + '"\n]', id="a list"),
    ],
)
def test_json_is_set_over_lines(value: JsonValue, text: str) -> None:
    assert lay_out(value) == text


@pytest.mark.unit
@pytest.mark.parametrize(
    ("schema", "words"),
    [
        pytest.param({"type": "integer", "minimum": 1, "maximum": 1000}, "integer, 1 to 1,000", id="between"),
        pytest.param(
            {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]},
            "string, at most 9 characters",
            id="or null",
        ),
        pytest.param({"type": "number", "minimum": 0}, "number, at least 0", id="from"),
        pytest.param({"enum": ["hour", "day"]}, "`hour` or `day`", id="a closed set"),
        pytest.param({"const": "failed"}, "`failed`", id="one value"),
        pytest.param({"$ref": "#/components/schemas/Status"}, "`one` or `two`", id="by reference"),
        pytest.param(
            {"type": "array", "items": {"type": "string"}, "maxItems": 20}, "list of string, at most 20", id="a list"
        ),
        pytest.param({}, "any", id="anything"),
    ],
)
def test_a_type_is_told_in_words(schema: Document, words: str) -> None:
    document: Document = {"components": {"schemas": {"Status": {"enum": ["one", "two"]}}}}

    assert type_of(document, schema) == words


def exchange(method: str, path: str, status: int, printed: str, command: str = "curl") -> Exchange:
    media_type = "application/problem+json" if status >= 400 else "application/json"
    return Exchange(command, method, path, status, (("content-type", media_type),), printed)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("media_type", "printed", "shown"),
    [
        pytest.param("application/json", '{"a":1}\n', '{"a": 1}', id="JSON"),
        pytest.param("application/x-ndjson", '{"a":1}\n{"a":2}\n', '{"a":1}\n{"a":2}', id="lines of JSON"),
        pytest.param("text/csv; charset=utf-8", "a,b\n1,2\n", "a,b\n1,2", id="text"),
    ],
)
def test_an_answer_is_shown_with_its_status_and_headers(media_type: str, printed: str, shown: str) -> None:
    answered = Exchange("curl", "GET", "/", 200, (("content-type", media_type),), printed)

    assert answered.shown() == f"HTTP/1.1 200 OK\nContent-Type: {media_type}\n\n{shown}\n"


@pytest.mark.unit
def test_examples_are_the_first_of_each_kind_and_of_this_operation() -> None:
    path = "/api/v1/conversations"
    command = "curl -H 'Content-Type: application/json' -d '{\"text\": \"a\"}' http://localhost:8000" + path
    exchanges = [
        exchange("GET", path, 200, '{"other": 1}'),
        exchange("POST", path, 202, '{"n": 1}', command),
        exchange("POST", path, 202, '{"n": 2}', command.replace('"a"', '"b"')),
        exchange("POST", path, 400, '{"error": "invalid_schema"}'),
    ]

    examples = examples_of(PLAIN, "post_conversation", exchanges)

    assert examples["bodies"] == [{"media_type": "application/json", "value": {"text": "a"}}]
    assert [answer["value"] for answer in examples["answers"]] == [{"n": 1}, {"error": "invalid_schema"}]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        pytest.param("true", "is one request", id="no request"),
        pytest.param("curl URL; curl URL", "is one request", id="two requests"),
        pytest.param("curl URL | no-such-program", "no-such-program", id="a command that fails"),
    ],
)
def test_a_session_is_one_request_after_another(command: str, complaint: str, replay: Replay) -> None:
    with pytest.raises(SessionFailed, match=complaint):
        replay.run(command.replace("URL", "http://localhost:8000/health"))
