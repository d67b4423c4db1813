import pytest

from loader.csv_times import DayOrder, DayOrderSurvey, is_moment, read_moment

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        pytest.param("Tue Oct 31 22:10:47 +0000 2017", "2017-10-31T22:10:47+00:00", id="Twitter's form"),
        pytest.param("Mon Apr 06 22:19:45 PDT 2009", "2009-04-06T22:19:45-07:00", id="a summer zone name"),
        pytest.param("Sun Dec 06 22:19:45 PST 2009", "2009-12-06T22:19:45-08:00", id="a winter zone name"),
        pytest.param("2015-02-24 11:35:52 -0800", "2015-02-24T11:35:52-08:00", id="a blank before the offset"),
        pytest.param("2015-02-24T11:35:52.5Z", "2015-02-24T11:35:52.500000+00:00", id="ISO with a fraction"),
        pytest.param("2020-05-26 08:09:16", "2020-05-26T08:09:16+00:00", id="no zone is UTC"),
        pytest.param("2020-05-26", "2020-05-26T00:00:00+00:00", id="a day alone"),
        pytest.param("24-02-2015 11:35", "2015-02-24T11:35:00+00:00", id="a day above 12 stands first"),
        pytest.param("2/24/15 11:35", "2015-02-24T11:35:00+00:00", id="two digits of a year"),
        pytest.param("1/15/2023 8:45 PM", "2023-01-15T20:45:00+00:00", id="a twelve-hour clock"),
        pytest.param("1/15/2023 12:45 AM", "2023-01-15T00:45:00+00:00", id="just after midnight"),
        pytest.param("42059.4832407407", "2015-02-24T11:35:52+00:00", id="a spreadsheet serial"),
        pytest.param("November 06, 2022 at 06:20AM", "2022-11-06T06:20:00+00:00", id="IFTTT's form"),
        pytest.param("Tue, 31 Oct 2017 22:10:47 +0200", "2017-10-31T22:10:47+02:00", id="a mail header's form"),
        pytest.param("1508000000", "2017-10-14T16:53:20+00:00", id="Unix seconds"),
        pytest.param("1508000000000", "2017-10-14T16:53:20+00:00", id="Unix milliseconds"),
        pytest.param("########", None, id="a spreadsheet's overflow"),
        pytest.param("2015-02-30", None, id="a day that is not there"),
        pytest.param("Tue Oct 41 22:10:47 +0000 2017", None, id="Twitter's form with a wrong day"),
        pytest.param("1/15/2023 13:45 PM", None, id="an hour that is not there"),
        pytest.param("soon", None, id="a word"),
        pytest.param("7", None, id="a small number"),
    ],
)
def test_a_moment_is_read_from_every_form_that_files_have(cell: str, moment: str | None) -> None:
    assert read_moment(cell) == moment


@pytest.mark.parametrize(
    ("order", "moment"),
    [(DayOrder.DAY_FIRST, "2015-04-03T11:35:00+00:00"), (DayOrder.MONTH_FIRST, "2015-03-04T11:35:00+00:00")],
)
def test_an_open_date_follows_the_order_of_its_file(order: DayOrder, moment: str) -> None:
    assert read_moment("03/04/2015 11:35", order) == moment


@pytest.mark.parametrize(
    ("cells", "order", "doubt"),
    [
        pytest.param(["03/04/2015", "24/04/2015"], DayOrder.DAY_FIRST, None, id="one day above 12 decides"),
        pytest.param(["03/04/2015", "04/24/2015"], DayOrder.MONTH_FIRST, None, id="in second place too"),
        pytest.param(["03/04/2015", "05/06/2015"], DayOrder.MONTH_FIRST, "ambiguous", id="slashes are American"),
        pytest.param(["03-04-2015", "05.06.2015"], DayOrder.DAY_FIRST, "ambiguous", id="others are not"),
        pytest.param(["24/04/2015", "25/04/2015", "04/24/2015"], DayOrder.DAY_FIRST, "mix", id="the majority decides"),
        pytest.param(["2015-04-24"], DayOrder.DAY_FIRST, None, id="ISO says nothing"),
    ],
)
def test_the_order_of_day_and_month_is_found_per_file(cells: list[str], order: DayOrder, doubt: str | None) -> None:
    survey = DayOrderSurvey()

    for cell in cells:
        survey.observe(cell)

    assert (survey.doubt or "").find(doubt or "") >= 0
    assert survey.order is order or doubt is None


def test_a_bare_number_is_not_taken_for_a_date_column() -> None:
    assert not is_moment("42059.48")
    assert is_moment("2/24/15 11:35")
