"""Trends, said as plainly as can be: one event and one person at a time, and no SQL.

An event is a dict {seq, t, name, user_id, anonymous_id, props, context}. A request has a range with start and end.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from statistics import fmean
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp
from oracle.filters import matches, number_of, text_of, value_of
from oracle.source import uid_of

from nimbus.v1.people_pb2 import TrendCell
from nimbus.v1.question_pb2 import EventSelector, Preset, WeekStart
from nimbus.v1.trend_pb2 import QueryTrendRequest, QueryTrendResponse, TrendMeasure, TrendSeries, TrendSeriesQuery

Event = Mapping[str, Any]
Values = tuple[str | None, ...]

SECOND = 1_000_000
FIXED = {"1m": 60 * SECOND, "5m": 300 * SECOND, "15m": 900 * SECOND, "1h": 3600 * SECOND}
PERCENTILES = {"MEDIAN": 50, "P90": 90, "P95": 95, "P99": 99}
NUMERIC = {"SUM", "AVERAGE", "MINIMUM", "MAXIMUM", *PERCENTILES}


def expected_trend(request: QueryTrendRequest, timezone: str, events: Sequence[Event]) -> QueryTrendResponse:
    """The `series` and `compared` of the response, with no other field; `timezone` is the project's."""
    zone = request.timezone or timezone
    start, end = _asked(request)
    top, rest = _combinations(request, _within(events, start, end))
    ranges = [(start, end)]
    if request.HasField("compare_to"):
        ranges.append(_compared(request, zone, start, end))
        _, compared_rest = _combinations(request, _within(events, *ranges[1]), top)
        rest = rest or compared_rest
    combinations: list[Values | None] = [*top, None] if rest else [*top]
    lines = [_lines(request, zone, _within(events, *one), one, combinations, top) for one in ranges]
    return QueryTrendResponse(series=lines[0], compared=lines[1] if len(lines) > 1 else [])


def expected_people(request: QueryTrendRequest, timezone: str, events: Sequence[Event], cell: TrendCell) -> set[int]:
    """The people behind a cell."""
    start, end = _asked(request)
    chosen = _within(events, start, end)
    top, _ = _combinations(request, chosen)
    chosen = [event for event in chosen if matches(request.series[cell.series].selector, event)]
    if cell.HasField("ts"):
        starts = _starts(request, request.timezone or timezone, start, end)
        chosen = [event for event in chosen if _bucket(starts, event["t"]) == _micros(cell.ts)]
    if cell.is_other:
        chosen = [event for event in chosen if _values(request, event) not in top]
    elif cell.breakdown:
        values = tuple(None if index in cell.unset else value for index, value in enumerate(cell.breakdown))
        chosen = [event for event in chosen if _values(request, event) == values]
    return {uid for event in chosen if (uid := uid_of(_person(event))) is not None}


def _asked(request: QueryTrendRequest) -> tuple[int, int]:
    return _micros(request.range.start), _micros(request.range.end)


def _within(events: Iterable[Event], start: int, end: int) -> list[Event]:
    return [event for event in events if start <= event["t"] < end]


def _person(event: Event) -> str | None:
    person: str | None = event["user_id"] if event["user_id"] is not None else event["anonymous_id"]
    return person


def _values(request: QueryTrendRequest, event: Event) -> Values:
    return tuple(text_of(value_of(path, event)) for path in request.breakdowns)


def _combinations(
    request: QueryTrendRequest, events: Sequence[Event], top: list[Values] | None = None
) -> tuple[list[Values], bool]:
    """The combinations that are told apart, unless they are given, and whether any other event is left."""
    counts = Counter(
        _values(request, event) for event in events if any(matches(series.selector, event) for series in request.series)
    )
    if top is None:
        if not request.breakdowns:
            return [()], False
        ordered = sorted(
            counts, key=lambda values: (-counts[values], [(v is None, (v or "").encode()) for v in values])
        )
        top = ordered[: request.breakdown_limit or 25]
    return top, any(values not in top for values in counts)


def _lines(
    request: QueryTrendRequest,
    zone: str,
    events: Sequence[Event],
    asked: tuple[int, int],
    combinations: Sequence[Values | None],
    top: Sequence[Values],
) -> list[TrendSeries]:
    starts = _starts(request, zone, *asked) if request.bucket else []
    columns: list[list[TrendSeries]] = []
    for series in request.series:
        column = []
        for values in combinations:
            mine = [
                event
                for event in events
                if matches(series.selector, event)
                and (_values(request, event) == values if values is not None else _values(request, event) not in top)
            ]
            parts = defaultdict(list)
            for event in mine:
                parts[_bucket(starts, event["t"]) if starts else 0].append(event)
            line = _line(_label(series.selector), values, request)
            for start in starts:
                _point(line, start, _measured(series, parts[start], mine, events))
            _total(line, _measured(series, mine, mine, events))
            if _measure(series) in NUMERIC:
                found = [value_of(series.property, event) for event in mine]
                line.ignored = sum(value is not None and number_of(value) is None for value in found)
            column.append(line)
        columns.append(column)
    formulas = []
    for formula in request.formulas:
        for rank, values in enumerate(combinations):
            line = _line(formula.label or formula.expression, values, request)
            inputs = [column[rank] for column in columns]
            for index, start in enumerate(starts):
                points = [one.points[index] for one in inputs]
                numbers = [point.value if point.HasField("value") else None for point in points]
                _point(line, start, _computed(formula.expression, numbers))
            totals = [one.total if one.HasField("total") else None for one in inputs]
            _total(line, _computed(formula.expression, totals))
            formulas.append(line)
    return [line for column in columns for line in column] + formulas


def _label(selector: EventSelector) -> str:
    return selector.label or ", ".join(dict.fromkeys(selector.names)) or "All events"


def _line(label: str, values: Values | None, request: QueryTrendRequest) -> TrendSeries:
    if values is None:
        return TrendSeries(label=label, is_other=True, breakdown=["other"] * len(request.breakdowns))
    unset = [index for index, value in enumerate(values) if value is None]
    return TrendSeries(label=label, breakdown=["unset" if value is None else value for value in values], unset=unset)


def _point(line: TrendSeries, start: int, value: float | None) -> None:
    line.points.add(value=value).ts.FromMicroseconds(start)


def _total(line: TrendSeries, value: float | None) -> None:
    if value is not None:
        line.total = value


def _measure(series: TrendSeriesQuery) -> str:
    return TrendMeasure.Name(series.measure or TrendMeasure.TREND_MEASURE_EVENTS).removeprefix("TREND_MEASURE_")


def _measured(  # noqa: PLR0911 - a measure, a return
    series: TrendSeriesQuery, part: list[Event], line: list[Event], everything: Sequence[Event]
) -> float | None:
    """The measure of the events of a part of a line, among all events of the range."""
    measure = _measure(series)
    people = {_person(event) for event in part} - {None}
    found = [value_of(series.property, event) for event in part] if series.property else []
    if measure == "EVENTS":
        return len(part)
    if measure == "PEOPLE":
        return len(people)
    if measure == "EVENTS_PER_PERSON":
        return sum(_person(event) is not None for event in part) / len(people) if people else None
    if measure == "SESSIONS":
        firsts = [_first(session, line) for session in _sessions(everything)]
        return sum(any(event is first for event in part) for first in firsts if first)
    if measure == "DISTINCT":
        return len({text_of(value) for value in found} - {None})
    numbers = sorted(number for value in found if (number := number_of(value)) is not None)
    if not numbers:
        return None
    if measure == "SUM":
        return math.fsum(numbers)
    if measure in PERCENTILES:
        place = (len(numbers) - 1) * PERCENTILES[measure] / 100
        low, high = numbers[math.floor(place)], numbers[math.ceil(place)]
        return low + (high - low) * (place - math.floor(place))
    return {"AVERAGE": fmean(numbers), "MINIMUM": numbers[0], "MAXIMUM": numbers[-1]}[measure]


def _sessions(events: Sequence[Event]) -> list[list[Event]]:
    people = defaultdict(list)
    for event in sorted(events, key=lambda event: (event["t"], event["seq"])):
        if (person := _person(event)) is not None:
            people[person].append(event)
    sessions = []
    for own in people.values():
        sessions.append([own[0]])
        for before, event in pairwise(own):
            if event["t"] - before["t"] > 1800 * SECOND:
                sessions.append([])
            sessions[-1].append(event)
    return sessions


def _first(session: list[Event], line: list[Event]) -> Event | None:
    return next((event for event in session if any(event is one for one in line)), None)


def _computed(expression: str, numbers: Sequence[float | None]) -> float | None:
    named = dict(zip("ABCDEFGHIJ", numbers, strict=False))
    if any(number is None and letter in expression for letter, number in named.items()):
        return None
    try:
        value = float(eval(expression, {}, named))  # noqa: S307 - the tests' own expressions
    except ZeroDivisionError:
        return None
    return value if math.isfinite(value) else None


def _compared(request: QueryTrendRequest, zone: str, start: int, end: int) -> tuple[int, int]:
    if request.compare_to.previous:
        length = _local(zone, end) - _local(zone, start)
        return _first_moment(zone, _local(zone, start) - length), start
    return _shifted(zone, start, request.compare_to.shift), _shifted(zone, end, request.compare_to.shift)


def _shifted(zone: str, at: int, shift: str) -> int:
    unit = shift.lstrip("0123456789")
    count = int(shift.removesuffix(unit))
    if unit in {"m", "h"}:
        return at - count * {"m": 60, "h": 3600}[unit] * SECOND
    local = _local(zone, at)
    if unit in {"d", "w"}:
        return _first_moment(zone, local - timedelta(days=count * {"d": 1, "w": 7}[unit]))
    for _ in range(count * {"mo": 1, "q": 3, "y": 12}[unit]):
        local = local.replace(day=1) - timedelta(days=1)  # the last day of the month before
    day = min(_local(zone, at).day, local.day)
    return _first_moment(zone, local.replace(day=day))


def _starts(request: QueryTrendRequest, zone: str, start: int, end: int) -> list[int]:
    """The starts of the buckets that overlap the range."""
    if request.bucket in FIXED:
        width = FIXED[request.bucket]
        return [*range(start - start % width, end, width)]
    first, last = (_local(zone, at).date() for at in (start, end))
    back = {"1d": 2, "1w": 9, "1mo": 33, "1q": 95, "1y": 370}[request.bucket]
    days = [first + timedelta(days=offset) for offset in range(-back, (last - first).days + 2)]
    starts = sorted({_start_of(zone, day) for day in days if _begins(request, day)})
    return [at for at, following in zip(starts, [*starts[1:], end], strict=True) if at < end and (following > start)]


def _begins(request: QueryTrendRequest, day: date) -> bool:
    """Whether a bucket begins on a day."""
    week_start = request.week_start
    if not week_start and request.preset == Preset.PRESET_POSTHOG:
        week_start = WeekStart.WEEK_START_SUNDAY
    weekday = {WeekStart.WEEK_START_SUNDAY: 6, WeekStart.WEEK_START_SATURDAY: 5}.get(week_start, 0)
    return {
        "1d": True,
        "1w": day.weekday() == weekday,
        "1mo": day.day == 1,
        "1q": day.day == 1 and day.month in {1, 4, 7, 10},
        "1y": day.day == 1 and day.month == 1,
    }[request.bucket]


def _bucket(starts: Sequence[int], t: int) -> int:
    return max(start for start in starts if start <= t)


@cache
def _start_of(zone: str, day: date) -> int:
    return _first_moment(zone, datetime(day.year, day.month, day.day))  # noqa: DTZ001 - it is local


def _first_moment(zone: str, wanted: datetime) -> int:
    """The first moment, looked for minute by minute, at which the clock shows a time or has passed it."""
    minute = 60 * SECOND
    at = (wanted.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    at = (at // minute - 15 * 60) * minute
    while True:
        local = _local(zone, at)
        if local >= wanted:
            return at
        if local + timedelta(minutes=1) > wanted:
            return at + (wanted - local) // timedelta(microseconds=1)
        at += minute


def _local(zone: str, at: int) -> datetime:
    return (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    )


def _micros(at: Timestamp) -> int:
    return at.ToMicroseconds()
