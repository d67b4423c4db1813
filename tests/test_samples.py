"""The sample holds what its README promises, and moving it in time changes nothing but its dates."""

import csv
import io
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samples.shift_to_now import DATE_FORMAT, SAMPLE, SampleError, main, newest_at, read_records, shift_rows

pytestmark = pytest.mark.unit

COLUMNS = ["tweet_id", "author_id", "inbound", "created_at", "text", "response_tweet_id", "in_response_to_tweet_id"]
HEADER = ",".join(COLUMNS).encode() + b"\r\n"
INCIDENT = datetime(2026, 1, 15, 7, 42, tzinfo=UTC), datetime(2026, 1, 15, 10, 42, tzinfo=UTC)
Row = dict[str, str]


def rows_of(content: bytes) -> list[Row]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))


def at(row: Row) -> datetime:
    return datetime.strptime(row["created_at"], DATE_FORMAT)  # noqa: DTZ007 - the format has %z


def shifted(content: bytes, by: timedelta) -> bytes:
    return b"".join(shift_rows(read_records(io.BytesIO(content)), by))


def tweet(created_at: str, text: str = "hello") -> bytes:
    return f"1,2,True,{created_at},{text},,\r\n".encode()


@pytest.fixture(scope="module")
def content() -> bytes:
    return SAMPLE.read_bytes()


@pytest.fixture(scope="module")
def rows(content: bytes) -> list[Row]:
    return rows_of(content)


def inbound(rows: list[Row]) -> Iterator[Row]:
    return (row for row in rows if row["inbound"] == "True")


def test_the_sample_has_about_300_rows_in_the_columns_of_twcs(content: bytes, rows: list[Row]) -> None:
    assert content.startswith(HEADER)
    assert 280 <= len(rows) <= 330


def test_the_readme_counts_the_rows_of_the_sample(rows: list[Row]) -> None:
    readme = SAMPLE.with_name("README.md").read_text(encoding="utf-8")

    assert f"holds {len(rows)} tweets" in readme


def test_records_end_in_crlf_and_newlines_inside_a_text_are_bare(content: bytes, rows: list[Row]) -> None:
    newlines_in_texts = sum(row["text"].count("\n") for row in rows)

    assert content.count(b"\r\n") == content.count(b"\r") == len(rows) + 1
    assert content.count(b"\n") - content.count(b"\r\n") == newlines_in_texts > 0


@pytest.mark.parametrize(
    ("column", "shape"),
    [
        ("tweet_id", r"\d+"),
        ("author_id", r"\d+|[A-Z][A-Za-z]+"),
        ("inbound", r"True|False"),
        ("created_at", r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d \+0000 \d{4}"),
        ("text", r"(?s:.){1,300}"),
        ("response_tweet_id", r"(\d+(,\d+)*)?"),
        ("in_response_to_tweet_id", r"\d*"),
    ],
)
def test_every_row_has_the_shape_of_twcs_in(column: str, shape: str, rows: list[Row]) -> None:
    assert [row[column] for row in rows if not re.fullmatch(shape, row[column])] == []


def test_customers_are_numbers_and_brands_have_names(rows: list[Row]) -> None:
    assert all(row["author_id"].isdecimal() == (row["inbound"] == "True") for row in rows)


def test_the_weekday_belongs_to_the_date(rows: list[Row]) -> None:
    assert all(at(row).strftime(DATE_FORMAT) == row["created_at"] for row in rows)


def test_tweet_ids_are_unique(rows: list[Row]) -> None:
    assert len({row["tweet_id"] for row in rows}) == len(rows)


def test_an_answer_and_its_parent_name_each_other_and_the_answer_is_later(rows: list[Row]) -> None:
    by_id = {row["tweet_id"]: row for row in rows}
    answers = [row for row in rows if row["in_response_to_tweet_id"] in by_id]

    for answer in answers:
        parent = by_id[answer["in_response_to_tweet_id"]]
        assert answer["tweet_id"] in parent["response_tweet_id"].split(",")
        assert at(parent) < at(answer)
    assert len(answers) > 100


def test_some_references_point_outside_the_file(rows: list[Row]) -> None:
    ids = {row["tweet_id"] for row in rows}
    children = {child for row in rows for child in row["response_tweet_id"].split(",") if child}

    assert sum(row["in_response_to_tweet_id"] not in ids | {""} for row in rows) >= 5
    assert children - ids


def test_some_parents_come_after_their_children_and_rows_are_not_in_time_order(rows: list[Row]) -> None:
    place = {row["tweet_id"]: number for number, row in enumerate(rows)}
    late = [row for row in rows if place.get(row["in_response_to_tweet_id"], -1) > place[row["tweet_id"]]]

    assert 20 < len(late) < 100
    assert [at(row) for row in rows] != sorted(at(row) for row in rows)


def test_the_sample_spreads_over_14_days_and_sleeps_at_night(rows: list[Row]) -> None:
    days = Counter(at(row).date() for row in rows)
    by_night = sum(at(row).hour < 6 for row in rows)

    assert (len(days), max(days) - min(days)) == (14, timedelta(days=13))
    assert min(days.values()) >= 8
    assert by_night <= len(rows) * 0.02


def test_the_incident_is_45_complaints_about_one_brand_within_three_hours(rows: list[Row]) -> None:
    start, end = INCIDENT
    first_tweets = [row for row in inbound(rows) if start <= at(row) <= end and not row["in_response_to_tweet_id"]]
    about_the_bank = [row for row in first_tweets if "@LumaBank" in row["text"]]

    assert len(about_the_bank) == len(first_tweets) == 45


def test_no_other_hour_comes_near_the_hours_of_the_incident(rows: list[Row]) -> None:
    hours = Counter(at(row).replace(minute=0, second=0) for row in inbound(rows))
    spam_hour = datetime(2026, 1, 10, 13, tzinfo=UTC)
    quiet = [n for hour, n in hours.items() if hour.date() != INCIDENT[0].date() and hour != spam_hour]

    assert {hour.hour for hour, _ in hours.most_common(2)} == {8, 9}
    assert min(n for _, n in hours.most_common(2)) >= 3 * max(quiet)


def test_no_other_day_comes_near_the_eleventh(rows: list[Row]) -> None:
    days = Counter(at(row).date() for row in inbound(rows))
    (worst, most), (_, second) = days.most_common(2)

    assert worst == min(days) + timedelta(days=10)
    assert most >= 2.5 * second


def test_different_people_write_the_same_words(rows: list[Row]) -> None:
    authors: dict[str, set[str]] = {}
    for row in inbound(rows):
        authors.setdefault(row["text"], set()).add(row["author_id"])

    assert sum(len(people) > 1 for people in authors.values()) >= 5


def test_a_dozen_spam_tweets_come_within_six_minutes(rows: list[Row]) -> None:
    spam = sorted(at(row) for row in rows if "lnk.example/win" in row["text"])

    assert len(spam) == 12
    assert spam[-1] - spam[0] < timedelta(minutes=6)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"https://\S+", id="only a link"),
        pytest.param(r"(@\w+ ?)+", id="only mentions"),
        pytest.param(r"\d+", id="only digits"),
        pytest.param(r"thanks!", id="only thanks"),
        pytest.param(r"😡", id="only an emoji"),
        pytest.param(r".*[\u0900-\u097f]{3}.*", id="Devanagari"),
        pytest.param(r".*[\u0600-\u06ff]{3}.*", id="Arabic"),
        pytest.param(r".*[\u3040-\u30ff]{3}.*", id="Japanese"),
    ],
)
def test_the_sample_holds_a_text_that_is(pattern: str, rows: list[Row]) -> None:
    assert any(re.fullmatch(pattern, row["text"]) for row in rows)


def test_every_link_is_invented(content: bytes) -> None:
    hosts = set(re.findall(rb"https?://([^/\s\"]+)", content))

    assert hosts == {b"lnk.example"}


def test_a_shift_of_nothing_changes_no_byte(content: bytes) -> None:
    assert shifted(content, timedelta()) == content


def test_a_shift_moves_every_date_by_the_same_time_and_nothing_else(content: bytes, rows: list[Row]) -> None:
    by = timedelta(days=40, hours=5, minutes=6, seconds=7)
    moved = shifted(content, by)
    date = re.compile(rb"\w{3} \w{3} \d\d \d\d:\d\d:\d\d \+0000 \d{4}")

    assert {at(after) - at(before) for before, after in zip(rows, rows_of(moved), strict=True)} == {by}
    assert date.sub(b"", moved) == date.sub(b"", content)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            HEADER + tweet("Wed Dec 31 23:59:59 +0000 2025", '"a ""quote"", a\ncomma"'),
            HEADER + tweet("Thu Jan 01 00:59:59 +0000 2026", '"a ""quote"", a\ncomma"'),
            id="quotes, a comma and a newline in the text",
        ),
        pytest.param(
            HEADER + tweet("Wed Dec 31 23:00:00 -0330 2025", '5" pipe'),
            HEADER + tweet("Thu Jan 01 00:00:00 -0330 2026", '5" pipe'),
            id="a quote inside an unquoted text, and a zone that stays",
        ),
        pytest.param(
            b'\xef\xbb\xbf"created_at","text"\n"Wed Dec 31 23:00:00 +0000 2025","\xff"\n\n',
            b'\xef\xbb\xbf"created_at","text"\n"Thu Jan 01 00:00:00 +0000 2026","\xff"\n\n',
            id="a BOM, a quoted date in the first column, a byte that is no UTF-8, a blank line",
        ),
        pytest.param(
            b"text,created_at\nTue Oct 31 22:10:47 +0000 2017,Tue Oct 31 22:10:47 +0000 2017",
            b"text,created_at\nTue Oct 31 22:10:47 +0000 2017,Tue Oct 31 23:10:47 +0000 2017",
            id="a date in the text, and no newline at the end",
        ),
    ],
)
def test_a_shift_keeps(before: bytes, after: bytes) -> None:
    assert shifted(before, timedelta(hours=1)) == after


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "the file is empty", id="an empty file"),
        pytest.param(b"a,b\r\n1,2\r\n", "no column created_at", id="another table"),
        pytest.param(HEADER, "no row to shift", id="a header alone"),
        pytest.param(
            HEADER + tweet("2017-10-31"), "record 2: '2017-10-31' is not a date like", id="another date format"
        ),
        pytest.param(HEADER + b"1,2\r\n", "record 2: '' is not a date", id="a short row"),
        pytest.param(HEADER + b'1,2,True,"Tue', "ends inside a quoted field", id="a file cut off"),
    ],
)
def test_a_file_is_refused_with_a_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(SampleError, match=sentence):
        newest_at(read_records(io.BytesIO(content)))


def test_a_quote_that_never_closes_is_found_before_the_whole_file_is_read() -> None:
    stream = io.BytesIO(HEADER + b'1,2,True,"open\n' + b"line\n" * 400_000)

    with pytest.raises(SampleError, match="opened and not closed"):
        newest_at(read_records(stream))
    assert stream.tell() < 1_100_000


def test_a_shift_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(SampleError, match="outside the calendar"):
        shifted(HEADER + tweet("Tue Oct 31 22:10:47 +0000 2017"), timedelta(days=3_000_000))


def test_the_command_puts_the_newest_row_at_the_chosen_end(tmp_path: Path) -> None:
    out = tmp_path / "recent.csv"

    assert main([str(SAMPLE), str(out), "--end", "2026-02-20T11:00:00.7+01:00"]) == 0
    assert max(at(row) for row in rows_of(out.read_bytes())) == datetime(2026, 2, 20, 10, tzinfo=UTC)


def test_without_words_the_command_writes_the_sample_as_of_now_to_the_standard_output() -> None:
    script = SAMPLE.with_name("shift_to_now.py")
    before = datetime.now(UTC).replace(microsecond=0)

    done = subprocess.run([sys.executable, str(script)], capture_output=True, check=True, timeout=30)

    assert before <= max(at(row) for row in rows_of(done.stdout)) <= datetime.now(UTC)


def test_the_command_does_not_write_over_its_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_bytes(SAMPLE.read_bytes())

    assert main([str(copy), str(copy)]) == 1
    assert "same file" in capsys.readouterr().err
    assert copy.read_bytes() == SAMPLE.read_bytes()


def test_the_command_names_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.csv"), "-"]) == 1
    assert "none.csv: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("end", ["tomorrow", "2026-01-20T10:00:00"])
def test_the_command_refuses_an_end_that_is_no_moment(end: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--end", end])

    assert end in capsys.readouterr().err
