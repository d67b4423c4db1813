"""Moments as files write them, turned into ISO 8601; the order of day and month is decided once per file."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_ZONE_HOURS = {
    "EEST": 3.0, "IST": 5.5, "JST": 9.0, "AEST": 10.0, "AEDT": 11.0,
    "Z": 0.0, "UTC": 0.0, "GMT": 0.0, "WET": 0.0, "BST": 1.0, "WEST": 1.0, "CET": 1.0, "CEST": 2.0, "EET": 2.0,
    "AST": -4.0, "ADT": -3.0, "EST": -5.0, "EDT": -4.0, "CST": -6.0, "CDT": -5.0, "MST": -7.0, "MDT": -6.0,
    "PST": -8.0, "PDT": -7.0, "AKST": -9.0, "AKDT": -8.0, "HST": -10.0,
}  # fmt: skip
_CLOCK = (
    r"(?:(?:[T ,]+(?:at +)?)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r" *(?P<half>[AaPp]\.?[Mm]\.?)?)? *(?P<zone>[A-Z]{1,4}|[+-]\d\d:?\d\d)?"
)
_WEEKDAY = r"(?:[A-Za-z]{3,9},? +)?"
_MONTH_NAME = r"(?P<month_name>[A-Za-z]{3,9})\.?"
_NUMERIC = re.compile(r"(?P<first>\d{1,2})(?P<mark>[-/.])(?P<next>\d{1,2})(?P=mark)(?P<year>\d{4}|\d\d)" + _CLOCK)
_FORMS = (
    re.compile(r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})" + _CLOCK),
    _NUMERIC,
    re.compile(  # Mon Apr 06 22:19:45 PDT 2009
        r"[A-Za-z]{3} +" + _MONTH_NAME + r" +(?P<day>\d{1,2}) +(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
        r"(?: +(?P<zone>[A-Z]{1,4}|[+-]\d{4}))? +(?P<year>\d{4})"
    ),
    re.compile(_WEEKDAY + _MONTH_NAME + r" +(?P<day>\d{1,2})(?:st|nd|rd|th)?,? +(?P<year>\d{4})" + _CLOCK),
    re.compile(_WEEKDAY + r"(?P<day>\d{1,2})[ -]+" + _MONTH_NAME + r",?[ -]+(?P<year>\d{4}|\d\d)" + _CLOCK),
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SPREADSHEET_EPOCH = datetime(1899, 12, 30, tzinfo=UTC)
_SERIAL_DAYS = (20_000.0, 80_000.0)  # 1954 to 2119: other numbers of this size are not dates
_EPOCH_SECONDS = (10**8, 10**10)  # 1973 to 2286; times 1,000 it is milliseconds


class DayOrder(StrEnum):
    MONTH_FIRST = "month first"
    DAY_FIRST = "day first"


@dataclass(slots=True)
class DayOrderSurvey:
    """What a column of numeric dates says about its own order: a value above 12 is a day."""

    day_first_count: int = 0
    month_first_count: int = 0
    open_count: int = 0
    slash_count: int = 0

    def observe(self, cell: str) -> None:
        match = _NUMERIC.match(cell)
        if match is None:
            return
        self.slash_count += match["mark"] == "/"
        if int(match["first"]) > 12:
            self.day_first_count += 1
        elif int(match["next"]) > 12:
            self.month_first_count += 1
        else:
            self.open_count += 1

    @property
    def order(self) -> DayOrder:
        """The order of the file; undecided dates are month first with `/`, day first with `-` or `.`, as usual."""
        if self.day_first_count != self.month_first_count:
            return DayOrder.DAY_FIRST if self.day_first_count > self.month_first_count else DayOrder.MONTH_FIRST
        return DayOrder.MONTH_FIRST if 2 * self.slash_count >= self.open_count else DayOrder.DAY_FIRST

    @property
    def doubt(self) -> str | None:
        """A sentence where the order is a guess, or where the file mixes both orders."""
        if self.day_first_count and self.month_first_count:
            return (
                f"dates mix two orders ({self.day_first_count} day first, {self.month_first_count} month first): "
                f"undecided ones are read as {self.order}"
            )
        if self.open_count and not self.day_first_count and not self.month_first_count:
            return f"dates are ambiguous (no day above 12 in {self.open_count}): read as {self.order}"
        return None


def read_moment(cell: str, order: DayOrder = DayOrder.MONTH_FIRST) -> str | None:
    """Turn one cell into ISO 8601 with an offset; a moment without a zone is UTC. None: it is no moment.

    Reads Twitter's two forms, ISO, numeric dates in either order, month names, spreadsheet serials, Unix times.
    """
    cell = cell.strip()
    if len(cell) == 30 and cell[20:22] == "+0":  # Tue Oct 31 22:10:47 +0000 2017: slicing is 6 times faster
        quick = _slice_twitter(cell)
        if quick:
            return quick
    if _NUMBER.fullmatch(cell):
        return _number_moment(cell)
    for form in _FORMS:
        match = form.fullmatch(cell)
        if match:
            return _compose(match.groupdict(), order)
    return None


def is_moment(cell: str) -> bool:
    """Whether a cell is written as a date; bare numbers do not count, they are more often ids."""
    cell = cell.strip()
    return not _NUMBER.fullmatch(cell) and read_moment(cell) is not None


def _slice_twitter(cell: str) -> str | None:
    month = _MONTHS.get(cell[4:7].lower())
    if month is None:
        return None
    written = f"{cell[26:]}-{month:02d}-{cell[8:10]}T{cell[11:19]}{cell[20:23]}:{cell[23:25]}"
    try:
        datetime.fromisoformat(written)
    except ValueError:
        return None
    return written


def _number_moment(cell: str) -> str | None:
    number = float(cell)
    if len(cell) == 8 and cell.isdigit():  # 20150224
        return _compose({"year": cell[:4], "month": cell[4:6], "day": cell[6:]}, DayOrder.MONTH_FIRST)
    if _SERIAL_DAYS[0] <= number <= _SERIAL_DAYS[1]:
        return (_SPREADSHEET_EPOCH + timedelta(seconds=round(number * 86_400))).isoformat()
    if _EPOCH_SECONDS[0] <= number < _EPOCH_SECONDS[1]:
        return datetime.fromtimestamp(int(number), UTC).isoformat()
    if 1_000 * _EPOCH_SECONDS[0] <= number < 1_000 * _EPOCH_SECONDS[1]:
        return datetime.fromtimestamp(number / 1_000, UTC).isoformat()
    return None


def _compose(groups: dict[str, str | None], order: DayOrder) -> str | None:
    zone = _zone(groups.get("zone"))
    month, day = _month_and_day(groups, order)
    if zone is None or month is None:
        return None
    try:
        moment = datetime(
            _year(groups["year"] or ""),
            month,
            day,
            _hour(groups.get("hour") or "0", groups.get("half")),
            int(groups.get("minute") or 0),
            int(groups.get("second") or 0),
            int((groups.get("fraction") or "0").ljust(6, "0")[:6]),
            tzinfo=zone,
        )
    except ValueError:
        return None
    return moment.isoformat()


def _year(written: str) -> int:
    year = int(written)
    return year if len(written) == 4 else year + (2000 if year < 70 else 1900)  # POSIX strptime's pivot


def _hour(written: str, half: str | None) -> int:
    hour = int(written)
    if half is None:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError("not an hour of a twelve-hour clock")
    return hour % 12 + (12 if half[0] in "Pp" else 0)


def _zone(written: str | None) -> timezone | None:
    if not written:
        return UTC
    if written[0] in "+-":
        offset = timedelta(hours=int(written[1:3]), minutes=int(written[-2:]))
        return timezone(-offset if written[0] == "-" else offset) if offset < timedelta(hours=24) else None
    hours = _ZONE_HOURS.get(written)
    return None if hours is None else timezone(timedelta(hours=hours))


def _month_and_day(groups: dict[str, str | None], order: DayOrder) -> tuple[int | None, int]:
    name = groups.get("month_name")
    if name:
        return _MONTHS.get(name[:3].lower()), int(groups["day"] or 0)
    if groups.get("first"):
        first, second = int(groups["first"] or 0), int(groups["next"] or 0)
        if first > 12 or (order is DayOrder.DAY_FIRST and second <= 12):
            return second, first
        return first, second
    return int(groups["month"] or 0), int(groups["day"] or 0)
