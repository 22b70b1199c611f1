"""Time zones, and the buckets of time that begin by their clocks."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from itertools import pairwise
from zoneinfo import ZoneInfo

from nimbus.v1.question_pb2 import WeekStart
from nimbus_server.clock import DAY, MINUTE, SECOND, micros, moment
from nimbus_server.errors import Reason, field_error

BUCKETS_MAX = 10_000
# Buckets of a fixed length; they begin at its whole multiples since 1970 in UTC.
FIXED = {"1m": MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": 60 * MINUTE}
WIDTHS = (*FIXED, "1d", "1w", "1mo", "1q", "1y")
# What a question says that wants none.
NO_BUCKETS = ("", "none")
MONTHS = {"1mo": 1, "1q": 3, "1y": 12}

# No event lies outside; rules of time zones are not looked up there.
_RULES_FROM, _RULES_TO = micros(datetime(2000, 1, 1, tzinfo=UTC)), micros(datetime(2200, 1, 1, tzinfo=UTC))
_FIRST_WEEKDAY: dict[int, int] = {
    WeekStart.WEEK_START_UNSPECIFIED: 0,
    WeekStart.WEEK_START_MONDAY: 0,
    WeekStart.WEEK_START_SUNDAY: 6,
    WeekStart.WEEK_START_SATURDAY: 5,
}


class Zone:
    """A time zone by its IANA name. Raises NimbusError with FIELD_INVALID for `timezone`."""

    def __init__(self, name: str) -> None:
        if name not in _names():
            raise field_error(
                Reason.FIELD_INVALID,
                "timezone",
                "timezone must be the IANA name of a time zone, such as Europe/Berlin.",
            )
        self.name = name
        self._rules = ZoneInfo(name)

    def offset(self, at: int) -> int:
        """Microseconds that the clock is ahead of UTC at a moment."""
        ahead = moment(at).astimezone(self._rules).utcoffset()
        return 0 if ahead is None else ahead // timedelta(microseconds=1)

    def day(self, at: int) -> date:
        """The local date of a moment."""
        return (moment(at) + timedelta(microseconds=self.offset(at))).date()

    def moment_of(self, local: datetime) -> int:
        """The first moment at which the clock shows a naive local time, or a later one where it leaps over it."""
        early = micros(local.replace(tzinfo=UTC)) - self._offset_of(local, 0)
        late = micros(local.replace(tzinfo=UTC)) - self._offset_of(local, 1)
        # In a gap the two are the other way round, with the leap between them.
        return early if early <= late else self._change(late, early)

    def start_of(self, day: date) -> int:
        """The first moment of a local day."""
        return self.moment_of(datetime(day.year, day.month, day.day))  # noqa: DTZ001 - it is local

    def local(self, t: str, start: int, end: int) -> str:
        """SQL: what the clock shows, as microseconds since 1970, at the moment `t` (SQL) of the range."""
        changes = [*self._changes(max(start, _RULES_FROM), min(end, _RULES_TO))]
        first = self.offset(max(min(start, _RULES_TO), _RULES_FROM))
        if not changes:
            return f"({t} + {first})"
        cases, before = "", first
        for at, after in changes:
            cases, before = f"{cases} WHEN {t} < {at} THEN {before}", after
        return f"({t} + CASE{cases} ELSE {before} END)"

    def _offset_of(self, local: datetime, fold: int) -> int:
        ahead = local.replace(tzinfo=self._rules, fold=fold).utcoffset()
        return 0 if ahead is None else ahead // timedelta(microseconds=1)

    def _changes(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The moments after `start` and before `end` at which the offset changes, with the new one."""
        at = start
        while at < end:
            following = min(at + DAY, end)
            if self.offset(at) != self.offset(following):
                change = self._change(at, following)
                if change < end:
                    yield change, self.offset(change)
            at = following

    def _change(self, low: int, high: int) -> int:
        """The moment after `low` and up to `high`, to the second, at which the offset becomes that of `high`."""
        before = self.offset(low)
        low, high = low // SECOND, -(-high // SECOND)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.offset(middle * SECOND) == before else (low, middle)
        return high * SECOND


@dataclass(frozen=True, slots=True)
class Buckets:
    """Buckets of time: `starts` holds the start of every one that overlaps a range, ascending, in microseconds."""

    starts: tuple[int, ...]

    @classmethod
    def of(cls, zone: Zone, width: str, start: int, end: int, week_start: int = 0) -> "Buckets":
        """Those of a width that overlap the range from `start` until before `end`.

        Days and longer ones begin at the first moment of a local day. Raises NimbusError with FIELD_INVALID for
        `bucket`: unknown, or too many of them.
        """
        if width not in WIDTHS:
            raise field_error(Reason.FIELD_INVALID, "bucket", f"bucket must be one of {', '.join(WIDTHS)}.")
        found: list[int] = []
        for at in _starts(zone, width, start, week_start):
            if at >= end:
                break
            if not found or at != found[-1]:  # some days are left out altogether
                found.append(at)
            if len(found) > 1 and found[1] <= start:
                del found[0]
            if len(found) > BUCKETS_MAX:
                raise field_error(
                    Reason.FIELD_INVALID,
                    "bucket",
                    f"bucket is too narrow for the range, which may have at most {BUCKETS_MAX} buckets.",
                )
        return cls(tuple(found))

    def number(self, at: int) -> int:
        """The number of the bucket with the moment `at` of the range."""
        return bisect_right(self.starts, at) - 1

    def index(self, t: str) -> str:
        """SQL: the number of the bucket with the moment `t` (SQL) of the range."""
        return f"CAST({_search(t, self._runs())} AS BIGINT)"

    def _runs(self) -> list["_Run"]:
        runs: list[_Run] = []
        for number, (start, end) in enumerate(pairwise(self.starts)):
            if not runs or runs[-1].width != end - start:
                runs.append(_Run(start, number, end - start))
        # The last one has no end here.
        return [*runs, _Run(self.starts[-1], len(self.starts) - 1, None)]


@dataclass(frozen=True, slots=True)
class _Run:
    """Buckets of one width that follow each other; the start and the number of the first."""

    start: int
    number: int
    width: int | None


def bucket_around(zone: Zone, width: str, at: int, week_start: int = 0) -> tuple[int, int]:
    """Start and end of the bucket, of one of WIDTHS, that holds a moment."""
    before = at
    for start in _starts(zone, width, at, week_start):
        if start > at:
            return before, start
        before = start
    raise AssertionError("time has no end")


def _starts(zone: Zone, width: str, start: int, week_start: int) -> Iterator[int]:
    """The starts of buckets, from that of the one with `start` or an earlier one on."""
    if width in FIXED:
        at = start - start % FIXED[width]
        while True:
            yield at
            at += FIXED[width]
    # Local clocks may go back over midnight: the bucket may be that of the day before.
    day = zone.day(start) - timedelta(days=1)
    if width in MONTHS:
        month = day.year * 12 + (day.month - 1) // MONTHS[width] * MONTHS[width]
        while True:
            yield zone.start_of(date(month // 12, month % 12 + 1, 1))
            month += MONTHS[width]
    if width == "1w":
        day -= timedelta(days=(day.weekday() - _first_weekday(week_start)) % 7)
    while True:
        yield zone.start_of(day)
        day += timedelta(days=7 if width == "1w" else 1)


def _search(t: str, runs: Sequence[_Run]) -> str:
    if len(runs) == 1:
        run = runs[0]
        return str(run.number) if run.width is None else f"{run.number} + ({t} - {run.start}) // {run.width}"
    middle = len(runs) // 2
    return f"CASE WHEN {t} < {runs[middle].start} THEN {_search(t, runs[:middle])} ELSE {_search(t, runs[middle:])} END"


def _first_weekday(week_start: int) -> int:
    """The number of the first day of a week, Monday being 0."""
    if week_start not in _FIRST_WEEKDAY:
        raise field_error(Reason.FIELD_INVALID, "week_start", "week_start must be MONDAY, SUNDAY or SATURDAY.")
    return _FIRST_WEEKDAY[week_start]


@cache
def _names() -> frozenset[str]:
    """The names of time zones: those of the package tzdata, wherever the rules come from."""
    return frozenset((files("tzdata") / "zones").read_text().split())
