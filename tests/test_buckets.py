"""Where buckets begin and end, on days of 23 and 25 hours too, and on those that clocks skip."""

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from errors import InvalidSchema
from parameters import TrendsQuery
from queries.buckets import Frame, bounds_of, span_of
from tests.histories import NOW, PLACES, TICK, Place

pytestmark = pytest.mark.unit

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def bounds(start: str, end: str, *, bucket: str = "day", zone: str = "UTC") -> list[str]:
    """As texts, without what every one of them has."""
    found = bounds_of(utc(start), utc(end), bucket=bucket, zone=ZoneInfo(zone))
    return [moment.isoformat(timespec="minutes").removesuffix("+00:00") for moment in found]


@pytest.mark.parametrize(
    ("zone", "start", "end", "expected"),
    [
        pytest.param(
            "UTC",
            "2026-01-01",
            "2026-01-03",
            ["2026-01-01T00:00", "2026-01-02T00:00", "2026-01-03T00:00"],
            id="two days",
        ),
        pytest.param(
            "UTC",
            "2026-01-01T18:30",
            "2026-01-02T06:15",
            ["2026-01-01T18:30", "2026-01-02T00:00", "2026-01-02T06:15"],
            id="the first and the last are cut",
        ),
        pytest.param(
            "UTC", "2026-01-01T18:30", "2026-01-01T19:00", ["2026-01-01T18:30", "2026-01-01T19:00"], id="within a day"
        ),
        pytest.param("UTC", "2026-01-01", "2026-01-01", ["2026-01-01T00:00"], id="nothing"),
        pytest.param(
            "America/New_York",
            "2026-03-08T05:00",
            "2026-03-10T04:00",
            ["2026-03-08T05:00", "2026-03-09T04:00", "2026-03-10T04:00"],
            id="23 hours, then 24",
        ),
        pytest.param(
            "America/New_York",
            "2026-11-01T04:00",
            "2026-11-03T05:00",
            ["2026-11-01T04:00", "2026-11-02T05:00", "2026-11-03T05:00"],
            id="25 hours, then 24",
        ),
        pytest.param(
            "America/Havana",
            "2026-03-07T05:00",
            "2026-03-09T04:00",
            ["2026-03-07T05:00", "2026-03-08T05:00", "2026-03-09T04:00"],
            id="a day that begins at 1 o'clock",
        ),
        pytest.param(
            "America/Havana",
            "2026-10-31T04:00",
            "2026-11-02T05:00",
            ["2026-10-31T04:00", "2026-11-01T04:00", "2026-11-02T05:00"],
            id="a day that has midnight twice",
        ),
        pytest.param(
            "Pacific/Apia",
            "2011-12-29T10:00",
            "2011-12-31T10:00",
            ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"],
            id="a day that never was",
        ),
        pytest.param(
            "Australia/Lord_Howe",
            "2026-04-04T13:00",
            "2026-04-06T13:30",
            ["2026-04-04T13:00", "2026-04-05T13:30", "2026-04-06T13:30"],
            id="24 hours and a half",
        ),
        pytest.param(
            "Asia/Kathmandu",
            "2026-01-01T18:15",
            "2026-01-03T00:00",
            ["2026-01-01T18:15", "2026-01-02T18:15", "2026-01-03T00:00"],
            id="a zone of quarter hours",
        ),
        pytest.param(  # clocks were turned back at 00:01, to 23:01 of the day before
            "America/St_Johns",
            "2010-11-06T02:30",
            "2010-11-07T03:00",
            ["2010-11-06T02:30", "2010-11-07T02:30", "2010-11-07T03:00"],
            id="a day that begins before the one before it has ended",
        ),
        pytest.param(
            "UTC",
            "9999-12-30",
            "9999-12-31T23:00",
            ["9999-12-30T00:00", "9999-12-31T00:00", "9999-12-31T23:00"],
            id="the last day there is",
        ),
    ],
)
def test_a_day_is_from_midnight_to_midnight_of_the_zone(zone: str, start: str, end: str, expected: list[str]) -> None:
    assert bounds(start, end, zone=zone) == expected


@pytest.mark.parametrize(
    ("zone", "start", "end", "expected"),
    [
        pytest.param("UTC", "2026-01-01T10:20", "2026-01-01T12:00", ["10:20", "11:00", "12:00"], id="cut at its start"),
        pytest.param(
            "Asia/Kolkata",
            "2026-01-01T10:00",
            "2026-01-01T12:00",
            ["10:00", "10:30", "11:30", "12:00"],
            id="half hours",
        ),
        pytest.param(
            "Asia/Kathmandu", "2026-01-01T10:15", "2026-01-01T12:15", ["10:15", "11:15", "12:15"], id="quarter hours"
        ),
        pytest.param(
            "America/New_York",
            "2026-03-08T05:00",
            "2026-03-08T09:00",
            ["05:00", "06:00", "07:00", "08:00", "09:00"],
            id="an hour that clocks skip is not there",
        ),
        pytest.param(
            "America/New_York",
            "2026-11-01T04:00",
            "2026-11-01T08:00",
            ["04:00", "05:00", "06:00", "07:00", "08:00"],
            id="an hour that is there twice is two",
        ),
        pytest.param(
            "Australia/Lord_Howe",
            "2026-04-04T14:00",
            "2026-04-04T17:30",
            ["14:00", "15:00", "15:30", "16:30", "17:30"],
            id="half an hour that is there twice",
        ),
        pytest.param(
            "Australia/Lord_Howe",
            "2026-10-03T14:30",
            "2026-10-03T17:00",
            ["14:30", "15:30", "16:00", "17:00"],
            id="half an hour that is not there",
        ),
        pytest.param(
            "Europe/Berlin",
            "9999-12-31T21:30",
            "9999-12-31T23:00",
            ["21:30", "22:00", "23:00"],
            id="until the last hour of the zone",
        ),
    ],
)
def test_an_hour_is_one_of_the_zones_clocks(zone: str, start: str, end: str, expected: list[str]) -> None:
    found = bounds(start, end, bucket="hour", zone=zone)

    assert [moment[-5:] for moment in found] == expected


@pytest.mark.parametrize(("name", "day"), PLACES)
def test_a_day_of_a_zone_lies_in_one_bucket(name: str, day: str) -> None:
    zone, start = ZoneInfo(name), utc(day) - timedelta(days=2)

    found = bounds_of(start, start + timedelta(days=5), bucket="day", zone=zone)

    days = [{local_date(first, zone), local_date(after - TICK, zone)} for first, after in pairwise(found)]
    assert all(len(each) == 1 for each in days), days
    assert len(set[date]().union(*days)) == len(days)


def local_date(moment: datetime, zone: ZoneInfo) -> date:
    return moment.astimezone(zone).date()


@pytest.mark.parametrize("bucket", ["hour", "day"])
def test_buckets_follow_each_other_from_the_start_to_the_end(bucket: str) -> None:
    dice = random.Random(7)
    longest = HOUR if bucket == "hour" else timedelta(hours=25)
    for _ in range(500):
        place = Place.draw(dice)
        start, end = sorted([place.moment(dice), place.moment(dice)])

        found = bounds_of(start, end, bucket=bucket, zone=place.zone)

        assert (found[0], found[-1]) == (start, end)
        assert all(first < after <= first + longest for first, after in pairwise(found)), (place, found)


def test_hours_begin_when_the_clocks_show_a_full_hour_or_are_turned() -> None:
    for name, day in PLACES:
        zone, start = ZoneInfo(name), utc(day) - DAY
        for moment in bounds_of(start, start + timedelta(days=3), bucket="hour", zone=zone)[1:-1]:
            clocks, before = moment.astimezone(zone), (moment - HOUR).astimezone(zone)
            assert clocks.minute == 0 or clocks.utcoffset() != before.utcoffset(), (name, moment)


# What a query asks for


def span(now: str, **wanted: Any) -> list[str]:
    start, end = span_of(TrendsQuery.model_validate(wanted), now=utc(now))
    return [moment.isoformat(timespec="minutes").removesuffix("+00:00") for moment in (start, end)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({}, ["2026-03-04T00:00", "2026-03-10T03:30"], id="seven days, today included"),
        pytest.param({"days": 1}, ["2026-03-10T00:00", "2026-03-10T03:30"], id="today"),
        pytest.param({"days": 366}, ["2025-03-10T00:00", "2026-03-10T03:30"], id="a year"),
        pytest.param(
            {"days": 1, "tz": "America/New_York"},
            ["2026-03-09T04:00", "2026-03-10T03:30"],
            id="where it is still yesterday",
        ),
        pytest.param(
            {"days": 3, "tz": "America/New_York"}, ["2026-03-07T05:00", "2026-03-10T03:30"], id="over a short day"
        ),
        pytest.param(
            {"days": 1, "end_time": "2026-02-02"},
            ["2026-02-01T00:00", "2026-02-02T00:00"],
            id="a day that ends at midnight",
        ),
        pytest.param(
            {"start_time": "2026-03-01T01:00"}, ["2026-03-01T01:00", "2026-03-10T03:30"], id="until now from a start"
        ),
        pytest.param(
            {"days": 3, "start_time": "2026-02-01", "end_time": "2026-02-03"},
            ["2026-02-01T00:00", "2026-02-03T00:00"],
            id="times go before days",
        ),
        pytest.param(
            {"start_time": "2027-01-01"}, ["2027-01-01T00:00", "2027-01-01T00:00"], id="nothing when it is to come"
        ),
    ],
)
def test_a_period_is_so_many_days_or_between_two_times(wanted: dict[str, Any], expected: list[str]) -> None:
    assert span("2026-03-10T03:30", **wanted) == expected


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana"])
def test_so_many_days_are_so_many_buckets(zone: str) -> None:
    for days in range(1, 367):
        frame = Frame.of(TrendsQuery.model_validate({"days": days, "tz": zone}), now=NOW)

        assert len(frame.bounds) == days + 1


def test_the_period_before_is_as_long() -> None:
    query = TrendsQuery.model_validate({"start_time": "2026-03-08", "end_time": "2026-03-09", "tz": "Asia/Kolkata"})

    frame = Frame.of(query, now=NOW)

    assert (frame.before, frame.start, frame.end) == (utc("2026-03-07"), utc("2026-03-08"), utc("2026-03-09"))


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"start_time": "0001-01-01", "end_time": "0001-01-02"}, id="nothing is before it"),
        pytest.param({"end_time": "0001-01-02"}, id="its days begin before the year 1"),
        pytest.param({"start_time": "9999-12-31T22:00", "end_time": "9999-12-31T23:59", "bucket": "hour"}, id="no end"),
        pytest.param(
            {"start_time": "9999-12-31", "end_time": "9999-12-31T23:59", "tz": "Asia/Kolkata"}, id="in the year 10000"
        ),
        pytest.param({"start_time": "2025-11-19"}, id="a start more than 366 days ago"),
        pytest.param({"start_time": "0001-01-01"}, id="a start in the year 1"),
    ],
)
def test_a_period_that_cannot_be_used_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchema):
        Frame.of(TrendsQuery.model_validate(wanted), now=NOW)


def test_a_start_366_days_ago_will_do() -> None:
    query = TrendsQuery(start_time=NOW - timedelta(days=366))

    assert Frame.of(query, now=NOW).start == NOW - timedelta(days=366)
