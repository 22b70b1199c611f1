"""What days and longer buckets of a time zone are, said plainly: look at the clock, one moment after the other."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

FIRST_WEEKDAYS = {0: 0, 1: 0, 2: 6, 3: 5}
SECOND = 1_000_000


def clock(zone: str, at: int) -> datetime:
    """What the clock shows, as a naive time, at a moment in microseconds since 1970."""
    return (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    )


def buckets(zone: str, width: str, moments: Iterable[int], week_start: int = 0) -> Iterator[tuple[int, date]]:
    """For each of the moments, which follow closely on each other: it, and the first day of its bucket.

    A day has begun when the clock has shown its midnight, or a later time, and does not end when the clock goes back.
    """
    latest = datetime.min  # noqa: DTZ901 - of a clock
    for at in moments:
        latest = max(latest, clock(zone, at))
        yield at, first_day(latest.date(), width, week_start)


def first_day(day: date, width: str, week_start: int = 0) -> date:
    """The first day of the bucket of a day."""
    if width == "1w":
        while day.weekday() != FIRST_WEEKDAYS[week_start]:
            day -= timedelta(days=1)
    elif width == "1mo":
        day = day.replace(day=1)
    elif width == "1q":
        day = day.replace(day=1, month={1: 1, 2: 1, 3: 1, 4: 4, 5: 4, 6: 4, 7: 7, 8: 7, 9: 7}.get(day.month, 10))
    elif width == "1y":
        day = day.replace(day=1, month=1)
    return day
