"""What retention means, said as plainly as can be: one person at a time, and no SQL.

Events are those of oracle.filters. Presets are not known here: a field that is unset has the default of its comment.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from oracle.filters import matches, number_of, text_of, value_of

from nimbus.v1.retention_pb2 import (
    QueryRetentionRequest,
    RetentionAlignment,
    RetentionCohortBy,
    RetentionCounting,
    RetentionMean,
    RetentionUnit,
)
from nimbus.v1.trend_pb2 import TrendMeasure

Event = Mapping[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000
LENGTHS = {"HOUR": HOUR, "DAY": 24 * HOUR, "WEEK": 7 * 24 * HOUR, "MONTH": 30 * 24 * HOUR}
PERCENTILES = {"MEDIAN": 50, "P90": 90, "P95": 95, "P99": 99}


@dataclass
class Cohort:
    """A cohort: its people, for each cell those who returned, and the returning events there."""

    start: int
    members: set[str] = field(default_factory=set)
    returned: list[set[str]] = field(default_factory=list)
    returns: list[list[Event]] = field(default_factory=list)
    complete: list[bool] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


class Rules:
    """A request with its defaults, and the units that its cohorts and periods are in."""

    def __init__(self, request: QueryRetentionRequest) -> None:
        self.request = request
        self.unit = _name(RetentionUnit, request.unit, "RETENTION_UNIT_", "DAY")
        self.cohort_by = _name(RetentionCohortBy, request.cohort_by, "RETENTION_COHORT_BY_", "FIRST_IN_RANGE")
        self.is_calendar = request.alignment != RetentionAlignment.RETENTION_ALIGNMENT_ROLLING
        self.counting = _name(RetentionCounting, request.counting, "RETENTION_COUNTING_", "ON")
        self.start = _micros(request.range.start.ToDatetime(UTC))
        self.end = _micros(request.range.end.ToDatetime(UTC))
        if request.brackets:
            self.counting = "BRACKETS"
            self.cells = [(one.first, one.last) for one in request.brackets]
        else:
            self.cells = [(period, period) for period in range((request.periods or 7) + 1)]
        first_day = {0: 0, 1: 0, 2: 6, 3: 5}[request.week_start]
        zone = request.timezone or "UTC"
        self.units = _units(self.unit, zone, first_day, self.start, self.end, self.cells[-1][1])

    def unit_of(self, t: int) -> int:
        return max(number for number, begin in enumerate(self.units) if begin <= t)

    def period_of(self, first: Event, event: Event) -> int:
        if self.is_calendar:
            return self.unit_of(event["t"]) - self.unit_of(first["t"])
        return int((event["t"] - first["t"]) // LENGTHS[self.unit])

    def counts(self, period: int, cell: tuple[int, int]) -> bool:
        if self.counting == "ON_OR_AFTER":
            return period >= cell[0]
        if self.counting == "ON_OR_BEFORE":
            return period <= cell[0]
        return cell[0] <= period <= cell[1]

    def is_over(self, cohort: int, period: int, at: int) -> bool:
        if self.is_calendar:
            return self.units[cohort + period + 1] <= at
        return min(self.units[cohort + 1], self.end) + (period + 1) * LENGTHS[self.unit] <= at


def retention(
    request: QueryRetentionRequest, events: Sequence[Event], at: datetime
) -> tuple[list[Cohort], list[float]]:
    """The cohorts and the means of a request with start and end of its range, answered at a moment."""
    rules = Rules(request)
    cohorts = [Cohort(begin) for begin in rules.units if begin < rules.end]
    for cohort in cohorts:
        cohort.returned = [set() for _ in rules.cells]
        cohort.returns = [[] for _ in rules.cells]
    for person, own in _by_person(events).items():
        for first in _start_events(rules, own):
            cohort = cohorts[rules.unit_of(first["t"])]
            cohort.members.add(person)
            later = own[own.index(first) + 1 :]
            for event in [one for one in later if matches(getattr(request, "return"), one)]:
                for number, cell in enumerate(rules.cells):
                    if rules.counts(rules.period_of(first, event), cell):
                        cohort.returned[number].add(person)
                        cohort.returns[number].append(event)
    for number, cohort in enumerate(cohorts):
        cohort.complete = [rules.is_over(number, last, _micros(at)) for _, last in rules.cells]
        if request.measure:
            cohort.values = [_value(request, returns) for returns in cohort.returns]
    return cohorts, [_mean(request, cohorts, number) for number in range(len(rules.cells))]


def _by_person(events: Sequence[Event]) -> dict[str, list[Event]]:
    people: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda event: (event["t"], event["seq"])):
        person = event["anonymous_id"] if event["user_id"] is None else event["user_id"]
        if person is not None:
            people.setdefault(person, []).append(event)
    return people


def _start_events(rules: Rules, own: Sequence[Event]) -> list[Event]:
    """The start events of a person from which returns count."""
    of_all = [event for event in own if matches(rules.request.start, event)]
    in_range = [event for event in of_all if rules.start <= event["t"] < rules.end]
    if rules.cohort_by == "EVERY":
        firsts: dict[int, Event] = {}
        for event in in_range:
            firsts.setdefault(rules.unit_of(event["t"]), event)
        return [*firsts.values()]
    if rules.cohort_by == "FIRST_EVER" and in_range[:1] != of_all[:1]:
        return []
    return in_range[:1]


def _value(request: QueryRetentionRequest, returns: Sequence[Event]) -> float:
    measure = TrendMeasure.Name(request.measure).removeprefix("TREND_MEASURE_")
    people = {event["anonymous_id"] if event["user_id"] is None else event["user_id"] for event in returns}
    values = [value_of(request.property, event) for event in returns] if request.property else []
    numbers = sorted(number for number in map(number_of, values) if number is not None)
    if measure in PERCENTILES:
        return _percentile(numbers, PERCENTILES[measure])
    return {
        "EVENTS": lambda: len(returns),
        "PEOPLE": lambda: len(people),
        "EVENTS_PER_PERSON": lambda: len(returns) / len(people) if people else math.nan,
        "DISTINCT": lambda: len({text for text in map(text_of, values) if text is not None}),
        "SUM": lambda: sum(numbers) if numbers else math.nan,
        "AVERAGE": lambda: sum(numbers) / len(numbers) if numbers else math.nan,
        "MINIMUM": lambda: min(numbers, default=math.nan),
        "MAXIMUM": lambda: max(numbers, default=math.nan),
    }[measure]()


def _percentile(numbers: Sequence[float], percent: int) -> float:
    if not numbers:
        return math.nan
    place = (len(numbers) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(numbers) - 1)
    return numbers[low] + (numbers[high] - numbers[low]) * (place - low)


def _mean(request: QueryRetentionRequest, cohorts: Sequence[Cohort], number: int) -> float:
    complete = [cohort for cohort in cohorts if cohort.complete[number]]
    if request.measure:
        known = [cohort.values[number] for cohort in complete if not math.isnan(cohort.values[number])]
        return sum(known) / len(known) if known else math.nan
    somebody = [cohort for cohort in complete if cohort.members]
    if not somebody:
        return -1
    if request.mean == RetentionMean.RETENTION_MEAN_SIMPLE:
        return sum(len(cohort.returned[number]) / len(cohort.members) for cohort in somebody) / len(somebody)
    returned = sum(len(cohort.returned[number]) for cohort in somebody)
    return returned / sum(len(cohort.members) for cohort in somebody)


def _units(unit: str, zone: str, first_day: int, start: int, end: int, last_period: int) -> list[int]:
    """First moments of the unit with `start` and of later ones, until the last period of the last cohort is over."""
    found: list[int] = []
    left = last_period + 1
    for begin in _begins(unit, zone, first_day, start):
        if begin <= start:
            found = [begin]
        elif found[-1] != begin:
            found.append(begin)
            if begin >= end:
                left -= 1
            if left == 0:
                return found
    raise AssertionError("time has no end")


def _begins(unit: str, zone: str, first_day: int, start: int) -> Iterator[int]:
    if unit == "HOUR":
        begin = start - start % HOUR
        while True:
            yield begin
            begin += HOUR
    # Early enough for every zone.
    day = (EPOCH + timedelta(microseconds=start)).date() - timedelta(days=40)
    while True:
        if unit == "DAY" or (unit == "WEEK" and day.weekday() == first_day) or (unit == "MONTH" and day.day == 1):
            yield _first_moment(zone, day)
        day += timedelta(days=1)


@cache
def _first_moment(zone: str, day: date) -> int:
    """The first moment at which the clock shows the day, or a later one: minute by minute until there is one."""
    clock = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    while clock.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) != clock.replace(tzinfo=None):
        clock += timedelta(minutes=1)
    return _micros(clock.astimezone(UTC))


def _micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def _name(values: Any, value: int, prefix: str, default: str) -> str:
    return str(values.Name(value).removeprefix(prefix)) if value else default
