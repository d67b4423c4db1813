import base64
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from parameters import ConversationQuery, InsightQuery, Position
from schemas import Analysis, BulkIn, ConversationIn, Sentiment, parse_time

pytestmark = pytest.mark.unit

ANALYSIS: dict[str, Any] = {
    "sentiment_score": -0.65,
    "clusters": ["delivery_problems"],
    "confidence": 0.9,
    "reasoning": "waits for weeks",
    "summary": "An order is late.",
    "language": "en",
}


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type] # year, month, day and so on


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("2025-01-20T10:00:00Z", utc(2025, 1, 20, 10), id="UTC by Z"),
        pytest.param("2025-01-20T10:00:00", utc(2025, 1, 20, 10), id="no zone is UTC"),
        pytest.param("2025-01-20", utc(2025, 1, 20), id="a day alone"),
        pytest.param("20250120", utc(2025, 1, 20), id="a day in the basic format"),
        pytest.param("2025-01-20 10:00", utc(2025, 1, 20, 10), id="a blank for the T"),
        pytest.param("2025-01-20T10:00:00+09:00", utc(2025, 1, 20, 1), id="an offset to the east"),
        pytest.param("2025-01-20T10:00:00-0530", utc(2025, 1, 20, 15, 30), id="an offset to the west without a colon"),
        pytest.param("2025-01-20T10:00:00 09:00", utc(2025, 1, 20, 1), id="the + that a query string lost"),
        pytest.param("2025-01-20T10:00:00 0900", utc(2025, 1, 20, 1), id="the same without a colon"),
        pytest.param("2025-01-20T10:00:00.123456Z", utc(2025, 1, 20, 10, 0, 0, 123456), id="microseconds"),
        pytest.param("2025-01-20T10:00:00.1Z", utc(2025, 1, 20, 10, 0, 0, 100000), id="tenths"),
        pytest.param("2025-01-20T10:00:00.123456789Z", utc(2025, 1, 20, 10, 0, 0, 123456), id="nanoseconds are cut"),
        pytest.param(" 2025-01-20T10:00:00Z ", utc(2025, 1, 20, 10), id="blanks around it"),
        pytest.param("2025-W04-1", utc(2025, 1, 20), id="a week date"),
        pytest.param("0001-01-01T00:00:00Z", utc(1, 1, 1), id="the first moment"),
        pytest.param("9999-12-31T23:59:59.999999Z", utc(9999, 12, 31, 23, 59, 59, 999999), id="the last moment"),
    ],
)
def test_a_time_is_read_as_one_moment_in_utc(text: str, moment: datetime) -> None:
    assert parse_time(text) == moment
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("0001-01-01T00:00+14:00", id="before the first year in UTC"),
        pytest.param("9999-12-31T23:59:59-14:00", id="after the last year in UTC"),
        pytest.param(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), id="a datetime before the first year"),
        pytest.param("1737367200", id="seconds since 1970 as text"),
        pytest.param("1737367200000", id="milliseconds since 1970 as text"),
        pytest.param("1610111230507", id="milliseconds that could be read as the year 1610"),
        pytest.param("16101112305", id="a number that could be read so too"),
        pytest.param(1737367200, id="seconds since 1970"),
        pytest.param(1737367200.5, id="fractions of seconds since 1970"),
        pytest.param(True, id="a truth"),
        pytest.param(None, id="nothing"),
        pytest.param("", id="an empty text"),
        pytest.param("yesterday", id="a word"),
        pytest.param("2025-02-30T00:00:00Z", id="a day there is not"),
        pytest.param("2025-01-20T25:00:00Z", id="an hour there is not"),
        pytest.param("10000-01-01T00:00:00Z", id="the year 10000"),
        pytest.param("2025-01-20T10:00:00Z" + " " * 100, id="a text without end"),
        pytest.param("2025-01-20T10:00:00\ud800", id="a lone surrogate"),
        pytest.param("\uff12\uff10\uff12\uff15-01-20", id="digits of another script"),
        pytest.param(datetime(2025, 1, 20), id="a datetime without a zone"),  # noqa: DTZ001 - that is the case
    ],
)
def test_what_is_no_time_is_refused_with_what_to_send(value: object) -> None:
    with pytest.raises(ValueError, match="must be an ISO 8601 text such as 2025-01-20T10:00:00Z"):
        parse_time(value)


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)), st.integers(-14 * 60, 14 * 60))  # noqa: DTZ001 - the zone is drawn apart
def test_the_same_instant_is_read_that_was_written(local: datetime, offset_minutes: int) -> None:
    moment = local.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))

    assert parse_time(moment.isoformat()) == moment
    assert parse_time(moment.isoformat().replace("+", " ")) == moment  # as a query string delivers it


@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        moment = parse_time(text)
    except ValueError:
        return
    assert moment.tzinfo is UTC


@given(st.datetimes(timezones=st.just(UTC)), st.integers(0, 2**63 - 1))
def test_a_cursor_comes_back_as_the_place_it_was_made_of(moment: datetime, row_id: int) -> None:
    position = Position(moment, row_id)

    assert Position.decode(position.encode()) == position
    assert InsightQuery.model_validate({"cursor": position.encode()}).cursor == position


def cursor_of(content: str) -> str:
    return base64.urlsafe_b64encode(content.encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        pytest.param("", id="nothing"),
        pytest.param("abc", id="letters"),
        pytest.param("!!!!", id="no base64"),
        pytest.param("ü" * 8, id="no ASCII"),
        pytest.param("\ud800", id="a lone surrogate"),
        pytest.param("gICA", id="no UTF-8"),
        pytest.param(cursor_of("2025-01-20T10:00:00+00:00"), id="no row"),
        pytest.param(cursor_of("2025-01-20T10:00:00+00:00|1|2"), id="too many parts"),
        pytest.param(cursor_of("2025-01-20T10:00:00+00:00|x"), id="a row that is no number"),
        pytest.param(cursor_of("2025-01-20T10:00:00+00:00|-1"), id="a row before the first"),
        pytest.param(cursor_of(f"2025-01-20T10:00:00+00:00|{2**63}"), id="a row of more than 63 bits"),
        pytest.param(cursor_of("0001-01-01T00:00+14:00|1"), id="a time before the first year"),
        pytest.param(cursor_of("soon|1"), id="no time"),
        pytest.param("A" * 100_000, id="a very long one"),
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Position.decode(cursor)
    with pytest.raises(ValidationError):
        InsightQuery.model_validate({"cursor": cursor})


@given(st.text(max_size=300))
def test_any_text_is_a_cursor_or_a_value_error(text: str) -> None:
    try:
        position = Position.decode(text)
    except ValueError:
        return
    assert 0 <= position.row_id < 2**63


@pytest.mark.parametrize(
    ("score", "side"),
    [
        (1.0, Sentiment.POSITIVE),
        (0.11, Sentiment.POSITIVE),
        (math.nextafter(0.1, 1), Sentiment.POSITIVE),
        (0.1, Sentiment.NEUTRAL),
        (0.0, Sentiment.NEUTRAL),
        (-0.1, Sentiment.NEUTRAL),
        (math.nextafter(-0.1, -1), Sentiment.NEGATIVE),
        (-1.0, Sentiment.NEGATIVE),
    ],
)
def test_a_tenth_is_still_neutral(score: float, side: Sentiment) -> None:
    assert Sentiment.of_score(score) is side


def read_as(model: type[BaseModel], body: str) -> BaseModel:
    return model.model_validate(orjson.loads(body))


def test_a_conversation_is_trimmed() -> None:
    read = ConversationIn(text="  late  ", author=" ann ", external_id="\ttweet-1\n")

    assert (read.text, read.author, read.external_id) == ("late", "ann", "tweet-1")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"text": "a" * 10_000}, id="the longest text"),
        pytest.param({"text": "😡" * 10_000}, id="the longest text of emoji"),
        pytest.param({"text": " " * 5 + "a" * 10_000 + " " * 5}, id="the longest text after trimming"),
        pytest.param({"text": "a", "author": "a" * 255, "external_id": "a" * 255}, id="the longest names"),
        pytest.param({"text": "a", "author": None, "timestamp": None, "raw_data": None}, id="parts that are null"),
        pytest.param({"text": "a", "raw_data": {"code": "\\u0000 spelt out"}}, id="a NUL that is only spelt out"),
        pytest.param({"text": "a", "raw_data": {"id": 2**63 - 1}}, id="an integer of 64 bits"),
        pytest.param({"text": "a", "raw_data": {"a": "b" * (64 * 1024 - 8)}}, id="the most raw data"),
    ],
)
def test_a_good_conversation_is_read(body: dict[str, Any]) -> None:
    assert ConversationIn.model_validate(body)


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="no text"),
        pytest.param({"text": None}, id="a text that is null"),
        pytest.param({"text": ""}, id="an empty text"),
        pytest.param({"text": " \n\t\u00a0"}, id="a blank text"),
        pytest.param({"text": "a" * 10_001}, id="a text too long"),
        pytest.param({"text": 7}, id="a text that is a number"),
        pytest.param({"text": "a\x00b"}, id="a NUL in the text"),
        pytest.param({"text": "a\ud800"}, id="a lone surrogate in the text"),
        pytest.param({"text": "a", "author": ""}, id="an empty author"),
        pytest.param({"text": "a", "author": "a" * 256}, id="an author too long"),
        pytest.param({"text": "a", "author": "a\x00"}, id="a NUL in the author"),
        pytest.param({"text": "a", "author": 7}, id="an author that is a number"),
        pytest.param({"text": "a", "external_id": " "}, id="a blank key"),
        pytest.param({"text": "a", "external_id": "a" * 256}, id="a key too long"),
        pytest.param({"text": "a", "timestamp": 1737367200}, id="a time since 1970"),
        pytest.param({"text": "a", "timestamp": "soon"}, id="a time that is a word"),
        pytest.param({"text": "a", "timestamp": math.nan}, id="a time that is no number"),
        pytest.param({"text": "a", "raw_data": []}, id="raw data that is a list"),
        pytest.param({"text": "a", "raw_data": {"a": "b" * (64 * 1024 - 7)}}, id="too much raw data"),
        pytest.param({"text": "a", "raw_data": deep(900)}, id="raw data too deep"),
        pytest.param({"text": "a", "raw_data": {"a": 2**64}}, id="an integer of more than 64 bits"),
        pytest.param({"text": "a", "raw_data": {"a": "\ud800"}}, id="a lone surrogate in raw data"),
        pytest.param({"text": "a", "raw_data": {"\ud800": 1}}, id="a lone surrogate in a key of raw data"),
        pytest.param({"text": "a", "raw_data": {"a": "\x00"}}, id="a NUL in raw data"),
        pytest.param({"text": "a", "raw_data": {"\x00": 1}}, id="a NUL in a key of raw data"),
        pytest.param({"text": "a", "raw_data": {"a": "\\\x00"}}, id="a NUL after a backslash"),
        pytest.param({"text": "a", "txt": "b"}, id="an unknown field"),
    ],
)
def test_a_bad_conversation_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ConversationIn.model_validate(body)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_raw_data_that_is_accepted_can_be_written_and_read_for_ever(raw_data: dict[str, Any]) -> None:
    try:
        read = ConversationIn(text="a", raw_data=raw_data)
    except ValidationError:
        assert any(character in repr(raw_data) for character in ("\\x00", "\\ud"))
        return
    assert orjson.loads(orjson.dumps(read.raw_data)) == raw_data


@pytest.mark.parametrize("count", [0, 501])
def test_a_bulk_holds_1_to_500_items(count: int) -> None:
    with pytest.raises(ValidationError):
        BulkIn(conversations=[{}] * count)


def test_a_bulk_leaves_bad_items_to_be_reported_one_by_one() -> None:
    assert len(BulkIn(conversations=[{"text": "a"}, 7, None] * 100).conversations) == 300


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"limit": "0"}, id="no row at all"),
        pytest.param({"limit": "1001"}, id="too many rows"),
        pytest.param({"limit": "1e2"}, id="a limit that is no integer"),
        pytest.param({"min_confidence": "1.01"}, id="a confidence above 1"),
        pytest.param({"min_confidence": "-0.01"}, id="a confidence below 0"),
        pytest.param({"min_confidence": "nan"}, id="a confidence that is no number"),
        pytest.param({"min_confidence": "inf"}, id="an infinite confidence"),
        pytest.param({"sentiment": "angry"}, id="a side there is not"),
        pytest.param({"sentiment": "Positive"}, id="a side in capitals"),
        pytest.param({"start_time": "soon"}, id="a start that is no time"),
        pytest.param({"start_time": "2025-01-21", "end_time": "2025-01-20"}, id="an end before the start"),
        pytest.param({"topic": ["a"] * 21}, id="too many topics"),
        pytest.param({"topic": [""]}, id="an empty topic"),
        pytest.param({"author": " "}, id="a blank author"),
        pytest.param({"page": "2"}, id="an unknown parameter"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InsightQuery.model_validate(parameters)


def test_a_query_without_parameters_asks_for_the_newest_hundred() -> None:
    query = InsightQuery.model_validate({})

    assert (query.limit, query.start_time, query.end_time, query.cursor) == (100, None, None, None)


def test_a_query_may_start_where_it_ends() -> None:
    assert InsightQuery.model_validate({"start_time": "2025-01-20", "end_time": "2025-01-20"})


@pytest.mark.parametrize(
    "cursor", ["", "conv_", "conv_" + "g" * 32, "conv_" + "a" * 33, "conv_" + "a" * 32 + "\n", "' OR 1=1"]
)
def test_a_place_in_the_list_of_conversations_is_an_id(cursor: str) -> None:
    with pytest.raises(ValidationError):
        ConversationQuery.model_validate({"cursor": cursor})


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"sentiment_score": 1.01}, id="a score too high"),
        pytest.param({"sentiment_score": math.nan}, id="a score that is no number"),
        pytest.param({"sentiment_score": math.inf}, id="an infinite score"),
        pytest.param({"sentiment_score": "0.5"}, id="a score as text"),
        pytest.param({"sentiment_score": True}, id="a score that is a truth"),
        pytest.param({"confidence": -0.01}, id="a confidence too low"),
        pytest.param({"confidence": None}, id="a confidence that is null"),
        pytest.param({"clusters": []}, id="no topic"),
        pytest.param({"clusters": [""]}, id="an empty topic"),
        pytest.param({"clusters": ["a"] * 9}, id="too many topics"),
        pytest.param({"clusters": "refunds"}, id="topics as text"),
        pytest.param({"summary": "a" * 2049}, id="a summary too long"),
        pytest.param({"invented": 1}, id="an unknown part"),
    ],
)
def test_an_analysis_is_checked_in_every_part(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Analysis.model_validate(ANALYSIS | changed)


def test_an_analysis_knows_its_side() -> None:
    assert Analysis.model_validate(ANALYSIS).sentiment is Sentiment.NEGATIVE
