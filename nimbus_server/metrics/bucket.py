"""Buckets of time: fixed widths in UTC, and days, weeks and months of a time zone."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)
TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class FixedBucket:
    """A width of time; buckets start at its whole multiples since 1970 in UTC."""

    name: str
    width: timedelta

    def floor(self, at: datetime) -> datetime:
        """Start of the bucket that holds `at`."""
        return at - (at - EPOCH) % self.width

    def ceil(self, at: datetime) -> datetime:
        """Start of the first bucket that does not start before `at`; `at` itself where the calendar ends before it."""
        floor = self.floor(at)
        try:
            return floor if floor == at else floor + self.width
        except OverflowError:
            return at

    def backwards(self, at: datetime) -> Iterator[datetime]:
        """Starts of the bucket that holds `at` and of those before it, newest first, to the start of the calendar."""
        start = self.floor(at)
        while True:
            yield start
            try:
                start -= self.width
            except OverflowError:
                return


@dataclass(frozen=True, slots=True)
class CalendarBucket:
    """Days, weeks from Monday, or months of a time zone: `1d`, `1w` or `1mo`.

    Each starts with its first date: at the first moment at which the local date is that one or a later one. A day of 23
    or 25 hours is one day, a local midnight that does not exist gives way to the first moment after it, and a date that
    a zone leaves out has no bucket.
    """

    name: str
    zone: ZoneInfo

    def floor(self, at: datetime) -> datetime:
        """Start of the bucket that holds `at`; the start of the calendar where the bucket starts before it."""
        return next(self.backwards(at), EARLIEST)

    def ceil(self, at: datetime) -> datetime:
        """Start of the first bucket that does not start before `at`; `at` itself where the calendar ends before it."""
        first = self._first(self._date(at))
        try:
            while (start := _midnight(first, self.zone)) < at:
                first = self._next(first)
        except OverflowError:
            return at
        return start

    def backwards(self, at: datetime) -> Iterator[datetime]:
        """Starts of the bucket that holds `at` and of those before it, newest first, to the start of the calendar."""
        first, last = self._first(self._date(at)), None
        with suppress(OverflowError):
            # Where clocks are set back over midnight, the next date may have begun once already.
            first = self._next(first)
        while True:
            start = _midnight(first, self.zone)
            if start <= at and start != last:
                yield start
                last = start
            try:
                first = self._first(first - timedelta(days=1))
            except OverflowError:
                return

    def _date(self, at: datetime) -> date:
        try:
            return at.astimezone(self.zone).date()
        except OverflowError:
            return at.date()

    def _first(self, day: date) -> date:
        """First date of the bucket that holds the date."""
        match self.name:
            case "1w":
                return day - timedelta(days=day.weekday())
            case "1mo":
                return day.replace(day=1)
            case _:
                return day

    def _next(self, first: date) -> date:
        """First date of the bucket after the one that starts with `first`."""
        days = {"1w": 7, "1mo": 31}.get(self.name, 1)
        return self._first(first + timedelta(days=days))


Bucket = FixedBucket | CalendarBucket

FIXED = {
    bucket.name: bucket
    for bucket in (
        FixedBucket("1m", timedelta(minutes=1)),
        FixedBucket("5m", timedelta(minutes=5)),
        FixedBucket("15m", timedelta(minutes=15)),
        FixedBucket("1h", timedelta(hours=1)),
    )
}
CALENDAR = ("1d", "1w", "1mo")


# A project's days are asked for again and again.
@lru_cache(maxsize=16_384)
def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """First moment, in UTC, at which the local date is this one or a later one, within what the calendar has."""
    local = datetime.combine(day, time(), zone)
    try:
        # Of a midnight that comes twice, the first.
        start = local.astimezone(UTC)
        if start.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
            return start
    except OverflowError:
        return EARLIEST if day.year == 1 else LATEST
    # Clocks leap over midnight, between the moments that it would be by the offsets before and after: find the leap.
    before, after = local.replace(fold=1).astimezone(UTC), start
    offset = after.astimezone(zone).utcoffset()
    while after - before > TICK:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after
