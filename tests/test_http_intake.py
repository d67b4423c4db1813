"""Taking conversations in over HTTP: what a 202 means, and what every refusal says."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.harness import running_app

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ONE = "/api/v1/conversations"
BULK = "/api/v1/conversations/bulk"
TEXT = "Still waiting on my order, third week now"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx2.AsyncClient]:
    async with running_app(tmp_path_factory.mktemp("intake")) as client:
        yield client


def assert_problem(answer: httpx2.Response, status: int, code: str) -> None:
    """The envelope, to the letter."""
    body = answer.json()
    assert (answer.status_code, body["error"], body["status"]) == (status, code, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["detail"] == body["details"] != ""
    assert body["request_id"] == answer.headers["x-request-id"]


async def fetch(api: httpx2.AsyncClient, conversation_id: str) -> Any:
    answer = await api.get(f"{ONE}/{conversation_id}")
    assert answer.status_code == 200
    return answer.json()


# One


async def test_a_conversation_is_accepted_and_can_be_read_at_once(api: httpx2.AsyncClient) -> None:
    sent = {
        "text": f"  {TEXT}\n",
        "author": "customer123",
        "timestamp": "2025-01-20T12:00:00+02:00",
        "raw_data": {"likes": 3, "nested": [1, None, {"a": "\U0001f621"}]},
    }

    answer = await api.post(ONE, json=sent)

    stored = await fetch(api, answer.json()["conversation_id"])
    assert answer.status_code == 202
    assert (stored["text"], stored["author"], stored["raw_data"]) == (TEXT, "customer123", sent["raw_data"])
    assert stored["timestamp"] == "2025-01-20T10:00:00Z"


async def test_the_answer_is_the_contracts(api: httpx2.AsyncClient) -> None:
    answer = await api.post(ONE, json={"text": TEXT})

    conversation_id = answer.json()["conversation_id"]
    expected = {"status": "accepted", "conversation_id": conversation_id, "message": "Conversation queued for analysis"}
    assert answer.json() == expected
    assert conversation_id.startswith("conv_")
    assert answer.headers["location"] == f"{ONE}/{conversation_id}"


async def test_ten_thousand_characters_are_the_most(api: httpx2.AsyncClient) -> None:
    longest = await api.post(ONE, json={"text": "\U0001f621" * 10_000})
    longer = await api.post(ONE, json={"text": "a" * 10_001})

    assert longest.status_code == 202
    assert_problem(longer, 400, "invalid_schema")


@pytest.mark.parametrize(
    ("sent", "details"),
    [
        pytest.param({}, "Missing required field: text", id="no text"),
        pytest.param({"author": "a"}, "Missing required field: text", id="no text beside an author"),
        pytest.param({"text": ""}, "Invalid field text: must not be empty", id="an empty text"),
        pytest.param({"text": " \n\t\u2003"}, "Invalid field text: must not be empty", id="blanks alone"),
        pytest.param({"text": TEXT, "author": ""}, "Invalid field author: must not be empty", id="an empty author"),
        pytest.param({"text": TEXT, "colour": "red"}, "Unknown field; see /docs for those there are", id="unknown"),
    ],
)
async def test_a_refusal_names_the_field(api: httpx2.AsyncClient, sent: Any, details: str) -> None:
    answer = await api.post(ONE, json=sent)

    assert_problem(answer, 400, "invalid_schema")
    assert answer.json()["details"] == details


async def test_a_form_is_answered_with_the_remedy(api: httpx2.AsyncClient) -> None:
    answer = await api.post(
        ONE, content=b'{"text": "x"}', headers={"content-type": "application/x-www-form-urlencoded"}
    )

    assert_problem(answer, 415, "unsupported_media_type")
    assert "Content-Type: application/json" in answer.json()["details"]


async def test_a_body_over_a_megabyte_is_refused(api: httpx2.AsyncClient) -> None:
    answer = await api.post(ONE, content=b" " * (1024 * 1024 + 1) + b"{}", headers={"content-type": "application/json"})

    assert_problem(answer, 413, "body_too_large")


# Sent again


async def test_the_same_external_id_and_content_is_stored_once(api: httpx2.AsyncClient) -> None:
    sent = {"text": TEXT, "external_id": "tweet-1", "raw_data": {"b": 1, "a": 2}}
    first = await api.post(ONE, json=sent)

    again = await api.post(ONE, json={**sent, "raw_data": {"a": 2, "b": 1}})

    assert again.status_code == 202
    assert again.json()["conversation_id"] == first.json()["conversation_id"]


async def test_the_same_external_id_with_other_content_is_a_conflict(api: httpx2.AsyncClient) -> None:
    await api.post(ONE, json={"text": TEXT, "external_id": "tweet-2"})

    answer = await api.post(ONE, json={"text": "something else", "external_id": "tweet-2"})

    assert_problem(answer, 409, "conflict")


async def test_32_at_once_with_one_external_id_make_one_row(api: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(api.post(ONE, json={"text": TEXT, "external_id": "tweet-race"}) for _ in range(32))
    )

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["conversation_id"] for answer in answers}) == 1


async def test_the_same_idempotency_key_and_body_get_the_same_answer(api: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "key-1"}
    first = await api.post(ONE, json={"text": TEXT}, headers=headers)

    again = await api.post(ONE, json={"text": TEXT}, headers=headers)

    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]


async def test_32_at_once_with_one_idempotency_key_make_one_row(api: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "key-race"}

    answers = await asyncio.gather(*(api.post(ONE, json={"text": TEXT}, headers=headers) for _ in range(32)))

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["conversation_id"] for answer in answers if answer.status_code == 202}) == 1


async def test_the_same_idempotency_key_with_another_body_is_a_mismatch(api: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "key-2"}
    await api.post(ONE, json={"text": TEXT}, headers=headers)

    answer = await api.post(ONE, json={"text": "another"}, headers=headers)

    assert_problem(answer, 422, "idempotency_mismatch")


async def test_a_mismatch_does_not_trouble_who_posts_at_the_same_time(api: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "key-3"}
    await api.post(ONE, json={"text": TEXT}, headers=headers)

    answers = await asyncio.gather(
        api.post(ONE, json={"text": "first neighbour"}),
        api.post(ONE, json={"text": "another"}, headers=headers),
        api.post(ONE, json={"text": "second neighbour"}),
    )

    assert [answer.status_code for answer in answers] == [202, 422, 202]


async def test_a_refused_request_leaves_its_idempotency_key_free(api: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "key-4"}
    await api.post(ONE, json={"text": ""}, headers=headers)

    answer = await api.post(ONE, json={"text": TEXT}, headers=headers)

    assert answer.status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_an_idempotency_key_has_1_to_255_characters(api: httpx2.AsyncClient, key: str) -> None:
    answer = await api.post(ONE, json={"text": TEXT}, headers={"idempotency-key": key})

    assert_problem(answer, 400, "invalid_schema")


async def test_a_bulk_request_with_an_idempotency_key_gets_the_same_answer_again(api: httpx2.AsyncClient) -> None:
    sent = {"conversations": [{"text": "one"}, {"text": ""}, {"text": "two"}]}
    headers = {"idempotency-key": "key-bulk"}
    first = await api.post(BULK, json=sent, headers=headers)

    again = await api.post(BULK, json=sent, headers=headers)

    assert first.status_code == again.status_code == 202
    assert again.json() == first.json()


# Bulk


async def test_valid_items_are_stored_and_the_others_reported_by_index(api: httpx2.AsyncClient) -> None:
    sent = {"conversations": [{"text": "one"}, {"text": ""}, 7, {"text": "two", "colour": "red"}, {"text": "three"}]}

    answer = await api.post(BULK, json=sent)

    body = answer.json()
    assert (answer.status_code, body["accepted"], body["duplicates"], body["rejected"]) == (202, 2, 0, 3)
    assert [(item["index"], item["status"]) for item in body["results"]] == [
        (0, "accepted"), (1, "invalid"), (2, "invalid"), (3, "invalid"), (4, "accepted"),
    ]  # fmt: skip


async def test_every_id_that_bulk_acknowledges_can_be_read(api: httpx2.AsyncClient) -> None:
    sent = {"conversations": [{"text": f"parcel {number}"} for number in range(500)]}

    answer = await api.post(BULK, json=sent)

    ids = [item["conversation_id"] for item in answer.json()["results"]]
    assert len(set(ids)) == 500
    assert [(await fetch(api, ids[number]))["text"] for number in (0, 250, 499)] == [
        "parcel 0",
        "parcel 250",
        "parcel 499",
    ]


async def test_more_than_500_items_are_refused_with_the_limit(api: httpx2.AsyncClient) -> None:
    answer = await api.post(BULK, json={"conversations": [{"text": "x"}] * 501})

    assert_problem(answer, 400, "invalid_schema")
    assert "500" in answer.json()["details"]


async def test_not_one_valid_item_is_a_400_with_each_reason(api: httpx2.AsyncClient) -> None:
    answer = await api.post(BULK, json={"conversations": [{"text": ""}, {}]})

    assert_problem(answer, 400, "invalid_schema")
    assert [item["status"] for item in answer.json()["results"]] == ["invalid", "invalid"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({}, id="no member"),
        pytest.param([], id="a list"),
        pytest.param({"conversations": []}, id="an empty list"),
        pytest.param({"conversations": {}}, id="an object"),
        pytest.param({"conversations": [{"text": "x"}], "more": 1}, id="an unknown member"),
        pytest.param(None, id="null"),
    ],
)
async def test_a_bulk_body_of_another_shape_is_refused(api: httpx2.AsyncClient, sent: Any) -> None:
    answer = await api.post(BULK, content=json.dumps(sent), headers={"content-type": "application/json"})

    assert_problem(answer, 400, "invalid_schema")


async def test_duplicates_and_conflicts_within_one_request_are_told_apart(api: httpx2.AsyncClient) -> None:
    items = [
        {"text": "same", "external_id": "bulk-1"},
        {"text": "same", "external_id": "bulk-1"},
        {"text": "other", "external_id": "bulk-1"},
    ]

    answer = await api.post(BULK, json={"conversations": items})

    results = answer.json()["results"]
    assert [item["status"] for item in results] == ["accepted", "duplicate", "invalid"]
    assert results[0]["conversation_id"] == results[1]["conversation_id"]


async def test_a_bulk_request_sent_again_stores_nothing(api: httpx2.AsyncClient) -> None:
    sent = {"conversations": [{"text": f"t {number}", "external_id": f"again-{number}"} for number in range(5)]}
    first = await api.post(BULK, json=sent)

    again = await api.post(BULK, json=sent)

    assert (first.json()["accepted"], again.json()["accepted"], again.json()["duplicates"]) == (5, 0, 5)


async def test_lines_of_json_are_taken_like_a_list(api: httpx2.AsyncClient) -> None:
    lines = b'{"text": "one"}\n\n{"text": ""}\r\n{"text": "two"}\nnot json\n'

    answer = await api.post(BULK, content=lines, headers={"content-type": "application/x-ndjson; charset=utf-8"})

    assert answer.status_code == 202
    assert [item["status"] for item in answer.json()["results"]] == ["accepted", "invalid", "accepted", "invalid"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n\n \n", id="blank lines"),
        pytest.param(b'{"text": "x"}\n' * 501, id="501 lines"),
        pytest.param(b"\xff\xfe\n", id="a line that is no UTF-8"),
    ],
)
async def test_lines_that_cannot_be_taken_are_refused(api: httpx2.AsyncClient, content: bytes) -> None:
    answer = await api.post(BULK, content=content, headers={"content-type": "application/x-ndjson"})

    assert_problem(answer, 400, "invalid_schema")


async def test_a_line_longer_than_a_single_body_is_reported_alone(api: httpx2.AsyncClient) -> None:
    lines = b'{"text": "one"}\n{"text": "' + b"x" * (1024 * 1024) + b'"}\n'

    answer = await api.post(BULK, content=lines, headers={"content-type": "application/x-ndjson"})

    assert [item["status"] for item in answer.json()["results"]] == ["accepted", "invalid"]


async def test_a_bulk_body_over_eight_megabytes_is_refused(api: httpx2.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 1024 * 1024

    answer = await api.post(BULK, content=endless(), headers={"content-type": "application/json"})

    assert_problem(answer, 413, "body_too_large")


# Retry


async def test_only_a_failed_conversation_can_be_sent_back(api: httpx2.AsyncClient) -> None:
    accepted = await api.post(ONE, json={"text": TEXT})

    answer = await api.post(f"{ONE}/{accepted.json()['conversation_id']}/retry")

    assert_problem(answer, 409, "conflict")


async def test_sending_back_what_is_not_there_is_a_404(api: httpx2.AsyncClient) -> None:
    answer = await api.post(f"{ONE}/conv_{'0' * 32}/retry")

    assert_problem(answer, 404, "not_found")


async def test_sending_back_all_failed_says_how_many(api: httpx2.AsyncClient) -> None:
    answer = await api.post(f"{ONE}/retry", params={"status": "failed"})

    assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "retried": 0})


async def test_only_failed_ones_can_be_asked_for(api: httpx2.AsyncClient) -> None:
    answer = await api.post(f"{ONE}/retry", params={"status": "completed"})

    assert_problem(answer, 400, "invalid_schema")


async def test_sending_all_back_is_limited_and_says_for_how_long(tmp_path: Path) -> None:
    async with running_app(tmp_path) as own:
        answers = [await own.post(f"{ONE}/retry") for _ in range(11)]

    assert [answer.status_code for answer in answers] == [202] * 10 + [429]
    assert_problem(answers[-1], 429, "rate_limit_exceeded")
    assert answers[-1].json()["retry_after"] == int(answers[-1].headers["retry-after"]) >= 1
