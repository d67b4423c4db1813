from pathlib import Path

import pytest

from loader.csv_order import join_threads, shuffle_rows
from loader.csv_rows import Rejected, Row, RowReader, survey_file
from loader.csv_source import Source

pytestmark = pytest.mark.unit

HEADER = "tweet_id,author_id,inbound,created_at,text,response_tweet_id,in_response_to_tweet_id\n"
THREAD = (  # the last tweet comes first, as in the published file
    "3,777,True,Tue Oct 31 22:10:43 +0000 2017,No answer yet,,2.0\n"
    "2,RailHelp,False,Tue Oct 31 22:10:42 +0000 2017,Sorry to hear that,3,1.0\n"
    "1,777,True,Tue Oct 31 22:10:41 +0000 2017,My train never came,2,\n"
)


def read(folder: Path, rows: str) -> RowReader:
    path = folder / "twcs.csv"
    path.write_text(HEADER + rows)
    return RowReader(survey_file(Source("twcs.csv", path)))


def texts(rows: list[Row | Rejected]) -> dict[object, object]:
    return {row.payload["external_id"]: row.payload["text"] for row in rows if isinstance(row, Row)}


def test_a_thread_is_one_conversation_under_its_root_in_order_of_time(tmp_path: Path) -> None:
    found = list(join_threads(read(tmp_path, THREAD)))

    assert texts(found) == {"twcs:1": "777: My train never came\nRailHelp: Sorry to hear that\n777: No answer yet"}
    assert isinstance(found[0], Row) and found[0].payload["timestamp"] == "2017-10-31T22:10:41+00:00"  # noqa: PT018


def test_threads_of_customers_alone_keep_what_the_brand_stood_between(tmp_path: Path) -> None:
    brand = "8,RailHelp,False,Tue Oct 31 22:10:42 +0000 2017,Have a good day,,\n"

    found = list(join_threads(read(tmp_path, THREAD + brand), inbound_only=True))

    assert texts(found) == {"twcs:1": "777: My train never came\n777: No answer yet"}


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        pytest.param("9,888,True,Tue Oct 31 22:10:44 +0000 2017,Wifi is slow here,,4.0\n", {"twcs:9"}, id="no parent"),
        pytest.param(
            "11,999,True,Tue Oct 31 22:10:45 +0000 2017,Round and round,,12\n"
            "12,Help,False,Tue Oct 31 22:10:46 +0000 2017,And round again,,11\n",
            {"twcs:11"},
            id="a ring starts at its first tweet",
        ),
        pytest.param("5,888,True,Tue Oct 31 22:10:44 +0000 2017,My own answer is me,,5\n", {"twcs:5"}, id="itself"),
    ],
)
def test_a_broken_thread_loses_no_tweet(tmp_path: Path, rows: str, names: set[str]) -> None:
    assert texts(list(join_threads(read(tmp_path, rows)))).keys() == names


def test_a_thread_longer_than_the_service_takes_is_cut(tmp_path: Path) -> None:
    long = "".join(
        f"{at},777,True,Tue Oct 31 22:10:41 +0000 2017,{'word ' * 60}no. {at},,{at - 1 or ''}\n" for at in range(1, 60)
    )

    [text] = texts(list(join_threads(read(tmp_path, long)))).values()

    assert len(str(text)) == 10_000
    assert str(text).endswith("[...]")


def test_a_shuffle_is_another_order_of_all_rows_and_only_the_seed_decides(tmp_path: Path) -> None:
    rows = "".join(f"{at},777,True,Tue Oct 31 22:10:41 +0000 2017,{'Late again' if at else ''},,\n" for at in range(50))
    orders = [[row.line for row in shuffle_rows(read(tmp_path, rows), seed=seed)] for seed in (1, 1, 2)]

    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(2, 52))
