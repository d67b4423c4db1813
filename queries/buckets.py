"""Where the buckets of a trend begin and end: hours or days of a time zone, daylight saving included."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from errors import InvalidSchema
from parameters import MOST_TREND_DAYS, TrendsQuery

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Frame:
    """From `start` until before `end`, cut into buckets at `bounds`; `before` begins the period of equal length."""

    before: datetime
    start: datetime
    end: datetime
    bounds: list[datetime]

    @classmethod
    def of(cls, query: TrendsQuery, *, now: datetime) -> "Frame":
        """Raises: InvalidSchema, when it would be too long, or leave the years 1 to 9999."""
        try:
            start, end = span_of(query, now=now)
            if query.end_time is None and query.start_time is not None:
                _check_length(start, end)
            return cls(start - (end - start), start, end, bounds_of(start, end, bucket=query.bucket, zone=query.tz))
        except OverflowError:
            raise InvalidSchema(
                "Invalid parameters: the period, and the one of equal length before it, must lie in the years 1 to 9999"
            ) from None


def _check_length(start: datetime, end: datetime) -> None:
    if end - start > timedelta(days=MOST_TREND_DAYS):
        raise InvalidSchema(
            f"Invalid parameters: start_time is more than {MOST_TREND_DAYS} days ago; send an end_time too"
        )


def span_of(query: TrendsQuery, *, now: datetime) -> tuple[datetime, datetime]:
    """Start and end of what a query asks for; `days` counts whole days of the time zone, today included."""
    end = query.end_time or max(now, query.start_time or now)
    if query.start_time is not None:
        return query.start_time, end
    today = (end - timedelta(microseconds=1)).astimezone(query.tz).date()
    return _midnight(today - timedelta(days=query.days - 1), query.tz), end


def bounds_of(start: datetime, end: datetime, *, bucket: str, zone: ZoneInfo) -> list[datetime]:
    """Where buckets begin, and the end of the last; the first and the last may be cut short."""
    bounds = [start]
    for moment in _hours(start, zone) if bucket == "hour" else _midnights_within(start, end, zone):
        if moment >= end:
            break
        if moment > bounds[-1]:
            bounds.append(moment)
    return [*bounds, end] if end > start else bounds


def _hours(start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Full hours on the zone's clocks, which in some zones are not those of UTC."""
    moment = start
    while True:
        local = moment.astimezone(zone)  # each time anew: clocks on Lord Howe Island change by half an hour
        moment += _HOUR - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        yield moment


def _midnights_within(start: datetime, end: datetime, zone: ZoneInfo) -> Sequence[datetime]:
    """And one more: where clocks go back past midnight, a day begins before the one before it has ended."""
    last = min(end.astimezone(zone).date(), date.max - _DAY) + _DAY
    return _midnights(start.astimezone(zone).date(), last, zone)


@lru_cache(maxsize=256)  # all day long the same ones are asked for
def _midnights(first: date, last: date, zone: ZoneInfo) -> Sequence[datetime]:
    """Where the days after the first begin."""
    return [_midnight(first + number * _DAY, zone) for number in range(1, (last - first).days + 1)]


@lru_cache(maxsize=10_000)
def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of the day: where clocks skip midnight, the moment at which they do."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)
