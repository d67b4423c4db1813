from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from loader.csv_rows import Plan, Rejected, Row, RowReader, survey_file
from loader.csv_source import Source

pytestmark = pytest.mark.unit

AIRLINE = "tweet_id,airline_sentiment,name,text,tweet_created\n"


def read(folder: Path, content: str | bytes, **overrides: str) -> tuple[Plan, RowReader, list[Row | Rejected]]:
    path = folder / "file.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    plan = survey_file(Source("file.csv", path), overrides)
    reader = RowReader(plan)
    return plan, reader, list(reader)


def payloads(rows: list[Row | Rejected]) -> list[dict[str, object]]:
    return [row.payload for row in rows if isinstance(row, Row)]


def names(rows: list[Row | Rejected]) -> list[object]:
    return [payload["external_id"] for payload in payloads(rows)]


def airline(ids: list[str], moment: str = "2015-02-24 11:35:52 -0800") -> str:
    rows = [f"{row_id},negative,flyer{at},@air seat {at} is broken,{moment}\n" for at, row_id in enumerate(ids)]
    return AIRLINE + "".join(rows)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        pytest.param(["5.70306E+17"] * 20, "rounded to the form 5.7E+17", id="E-notation"),
        pytest.param(["5.70306133677761E+017", "5.7031E+17"] * 10, "rounded to the form", id="long E-notation"),
        pytest.param([f"57030613{at:02d}00000000" for at in range(20)], "rounded them to 15 digits", id="zeros"),
        pytest.param(["1", "2"] * 10, "about 2 distinct values in 20 rows", id="far fewer values than rows"),
        pytest.param([""] * 20, "20 of 20 are missing", id="none at all"),
    ],
)
def test_lossy_ids_lose_no_rows_and_are_told(tmp_path: Path, ids: list[str], reason: str) -> None:
    plan, _, rows = read(tmp_path, airline(ids))

    assert len(set(names(rows))) == 20
    assert reason in plan.notes[0]


def test_equal_rows_without_ids_get_their_position_the_same_every_time(tmp_path: Path) -> None:
    content = "label,text\nbad,The door sticks again\nbad,The door sticks again\ngood,The door is mended\n"

    first, again = names(read(tmp_path, content)[2]), names(read(tmp_path, content)[2])

    assert first == again and len(set(first)) == 3  # noqa: PT018 - one claim: the same three
    assert first[1] == f"{first[0]}-2"


def test_a_true_id_that_comes_again_with_other_content_is_kept_apart(tmp_path: Path) -> None:
    rows = [f"{at},negative,flyer,@air seat {at},2015-02-24 11:35:52 -0800\n" for at in range(60)]
    rows += ["7,negative,flyer,@air seat 7,2015-02-24 11:35:52 -0800\n", "8,negative,flyer,@air other,2015-02-24\n"]

    found = names(read(tmp_path, AIRLINE + "".join(rows))[2])

    assert found[60] == "airline:7"
    assert str(found[61]).startswith("airline:8~")


def test_a_second_id_column_stands_in_for_a_lossy_one(tmp_path: Path) -> None:
    rows = [f"{at},FALSE,negative,flyer,@air seat {at},5.7E+17\n" for at in range(20)]

    plan, _, found = read(tmp_path, "_unit_id,_golden,airline_sentiment,name,text,tweet_id\n" + "".join(rows))

    assert names(found)[3] == "airline-unit_id:3"
    assert "_unit_id is the key instead" in plan.notes[0]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        pytest.param("=@air what a day", "@air what a day", id="a formula guard"),
        pytest.param("'-5 stars for this", "-5 stars for this", id="an apostrophe guard"),
        pytest.param("'tis a fine day", "'tis a fine day", id="an apostrophe of the writer"),
        pytest.param("Itâ€™s late", "It\u2019s late", id="mojibake"),
        pytest.param("fish &amp; chips &lt;3", "fish &amp; chips &lt;3", id="entities stay as they were sent"),
        pytest.param("  blanks around ", "blanks around", id="blanks"),
        pytest.param("señor, à propos", "señor, à propos", id="accents are no mojibake"),
    ],
)
def test_a_text_is_cleaned_of_what_tools_did_to_it(tmp_path: Path, cell: str, text: str) -> None:
    _, _, rows = read(tmp_path, f'id,text\n1,"{cell}"\n2,Another quite ordinary text\n')

    assert payloads(rows)[0]["text"] == text


def test_mac_roman_mojibake_becomes_what_was_meant(tmp_path: Path) -> None:
    content = "id,text\n1,the “bag” isn\u2019t here\n2,won\u2019t it come\n"
    damaged = content.encode().decode("cp1252", "replace").replace("\ufffd", "ù").encode("mac_roman", "replace")

    plan, _, rows = read(tmp_path, damaged)

    assert plan.form.encoding == "mac_roman"
    assert [payload["text"] for payload in payloads(rows)] == [
        "the “bag” isn\u2019t here",
        "won\u2019t it come",
    ]


@pytest.mark.parametrize(
    ("moments", "first"),
    [
        pytest.param(["03-04-2015 11:35", "24-04-2015 11:35"], "2015-04-03T11:35:00+00:00", id="a later row decides"),
        pytest.param(["3/4/15 11:35", "4/24/15 11:35"], "2015-03-04T11:35:00+00:00", id="the other way round"),
    ],
)
def test_day_and_month_follow_the_whole_file(tmp_path: Path, moments: list[str], first: str) -> None:
    rows = [f"{at},bad,flyer,@air seat {at} is broken,{moment}\n" for at, moment in enumerate(moments)]

    assert payloads(read(tmp_path, AIRLINE + "".join(rows))[2])[0]["timestamp"] == first


def test_an_unreadable_date_is_left_out_kept_beside_and_counted(tmp_path: Path) -> None:
    content = airline([str(at) for at in range(30)]) + "99,bad,flyer,@air seat,long ago\n"

    _, reader, rows = read(tmp_path, content)

    assert payloads(rows)[-1].get("timestamp") is None
    assert payloads(rows)[-1]["raw_data"] == {"airline_sentiment": "bad", "tweet_created": "long ago"}
    assert reader.repairs["unreadable date left out"] == 1


def test_the_other_columns_travel_where_they_say_something(tmp_path: Path) -> None:
    content = ",id,text,likes,place,,note\n0,a,The door sticks a lot,3,NA,,#####\n1,b,The window is fine now,,Oslo,,\n"

    _, _, rows = read(tmp_path, content)

    assert [payload.get("raw_data") for payload in payloads(rows)] == [{"likes": "3"}, {"place": "Oslo"}]


def test_what_is_too_long_is_cut_to_what_the_service_takes(tmp_path: Path) -> None:
    content = (
        f"id,text,author,page\n1,The door sticks a lot,{'A' * 300},{'x' * 90_000}\n{'9' * 300},Fine now I think,B,\n"
    )

    _, reader, rows = read(tmp_path, content)

    first, second = payloads(rows)
    assert (first["author"], first["raw_data"]) == ("A" * 255, {"page": "x" * 1_000})
    assert len(str(second["external_id"])) < 60
    assert reader.repairs.keys() == {"author cut to 255 characters", "other columns cut to 64 KB"}


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        pytest.param("", "the text is empty", id="empty"),
        pytest.param("   ", "the text is empty", id="blank"),
        pytest.param("NaN", "the text is empty", id="a tool's nothing"),
        pytest.param("########", "the text is ####, a spreadsheet's mark for a column too narrow", id="overflow"),
        pytest.param("x" * 10_001, "the text has more than 10000 characters", id="too long"),
    ],
)
def test_a_row_without_a_usable_text_is_rejected_with_its_line(tmp_path: Path, cell: str, reason: str) -> None:
    _, _, rows = read(tmp_path, f"id,text\n1,Quite an ordinary text\n2,{cell}\n3,Another ordinary text\n")

    assert [(row.line, row.reason) for row in rows if isinstance(row, Rejected)] == [(3, reason)]


@pytest.mark.parametrize(
    ("written", "row_id"),
    [("3.0", "csv:3"), ('"=""3"""', "csv:3"), ("https://x.test/a/status/77", "csv:77"), ("ab-1", "csv:ab-1")],
)
def test_an_id_is_freed_of_what_tools_add(tmp_path: Path, written: str, row_id: str) -> None:
    _, _, rows = read(tmp_path, f"id,text\n{written},Quite an ordinary text\nq,Another ordinary text\n")

    prefix, _, found = str(names(rows)[0]).partition(":")
    assert f"{prefix.partition('-')[0]}:{found}" == row_id


def test_columns_can_be_named_by_the_user(tmp_path: Path) -> None:
    content = "a,b,c\n7,who knows,The door sticks a lot\n8,someone,The window is fine\n"

    _, _, rows = read(tmp_path, content, text="c", author="2", id="a")

    assert payloads(rows)[0] | {"external_id": ""} == {
        "text": "The door sticks a lot",
        "author": "who knows",
        "external_id": "",
    }


def test_rows_that_are_broken_off_may_be_let_go_in_another_thread(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text(airline(["1", "2", "3"]))
    rows = cast("Generator[Row | Rejected, None, None]", iter(RowReader(survey_file(Source("file.csv", path), {}))))
    next(rows)

    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(rows.close).result()

    assert list(rows) == []
