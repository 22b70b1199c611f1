"""The SQL of trends over the relation `src`.

`_events` are the events of at least one series in a range, with the columns `t`, `uid`, and by number of the series
`p0` (whether the event is one of the series), `v0` (what is measured of it) and `s0` (whether its property is set), by
number of the breakdown `k0` (its value as text, NULL where it is missing).

The cells of an answer are rows of `g, b` and `Series.columns` columns for each series: its number, or the numerator and
the denominator of a ratio; and for a measure of a number how many events are ignored. `g` is the rank of the
combination of breakdown values, that of the rest comes after the last one. `b` is the number of the bucket, NULL in the
row of the whole range.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd

from nimbus.v1.trend_pb2 import TrendMeasure
from nimbus_server.analyses.literal import literal
from nimbus_server.analyses.time_range import Range
from nimbus_server.analyses.trend.plan import ADDITIVE, NUMERIC, PERCENTILES, Period, Plan, Series
from nimbus_server.clock import DAY, MINUTE

SESSION_GAP = 30 * MINUTE
# Buckets that are marked in one number of 64 bits.
_MARKS = 62

# The columns of measures of a number: what each is of the values, and what makes one of several.
_AGGREGATES: dict[int, dict[str, str]] = {
    TrendMeasure.TREND_MEASURE_SUM: {"sum": "sum"},
    TrendMeasure.TREND_MEASURE_AVERAGE: {"sum": "sum", "count": "sum"},
    TrendMeasure.TREND_MEASURE_MINIMUM: {"min": "min"},
    TrendMeasure.TREND_MEASURE_MAXIMUM: {"max": "max"},
}

_PEOPLE = TrendMeasure.TREND_MEASURE_PEOPLE

# A combination of values of the breakdowns, None for a missing one.
Values = tuple[str | None, ...]


def is_ranked_at_once(plan: Plan) -> bool:
    """Whether `ranked_sql` can answer: a trend of totals, by breakdowns, of events and their numbers alone."""
    counted = all(one.measure in ADDITIVE and not one.is_of_sessions for one in plan.series)
    return bool(plan.breakdowns) and not plan.period.buckets and counted


def ranked_sql(plan: Plan) -> str:
    """The most frequent combinations and their cells in one pass over the events: rows of `g, b, k0…` and series."""
    columns, keys = _columns(plan), _keys(plan)
    values = ", ".join(f"min(k{index})" for index in range(len(plan.breakdowns)))
    return f"""
WITH combination AS (
    SELECT {keys}, count(*) AS events{_parts(columns)} FROM ({_events(plan, plan.period)}) GROUP BY {keys}
), ranked AS (
    SELECT *, least(row_number() OVER (ORDER BY {_order(plan, "events")}) - 1, {plan.breakdown_limit}) AS g
    FROM combination
)
SELECT g, NULL AS b, {values}{_merged(columns)} FROM ranked GROUP BY g"""


def top_sql(plan: Plan) -> str:
    """The most frequent combinations of values, the most frequent first: rows of `k0…`."""
    return f"""
SELECT {_keys(plan)} FROM ({_events(plan, plan.period)})
GROUP BY {_keys(plan)} ORDER BY {_order(plan, "count(*)")} LIMIT {plan.breakdown_limit}"""


def cells_sql(plan: Plan, period: Period, top: Sequence[Values]) -> str:
    """The cells of all series but those of sessions, by the combinations of `top`."""
    events, columns = _ranked(plan, _events(plan, period), top), _columns(plan)
    whole = "".join(f", {column.aggregate}" for column in columns)
    if period.buckets is None:
        return f"SELECT g, NULL AS b{whole} FROM ({events}) GROUP BY g"
    if all(one.measure in ADDITIVE for one in plan.series):
        # The few slots are looked up in the buckets, not every event. Each bucket is made of whole slots.
        slot = gcd(*period.buckets.starts[1:]) or DAY
        bucket = period.buckets.index(f"greatest(slot * {slot}, {period.range.start})")
        return f"""
WITH slots AS (SELECT g, t // {slot} AS slot{_parts(columns)} FROM ({events}) GROUP BY g, slot)
SELECT g, b{_merged(columns)} FROM (SELECT *, {bucket} AS b FROM slots) GROUP BY GROUPING SETS ((g, b), (g))"""
    bucket = period.buckets.index("t")
    if len(period.buckets.starts) <= _MARKS and all(one.measure == _PEOPLE for one in plan.series):
        return _people_sql(plan, events, bucket, len(period.buckets.starts))
    return f"""
SELECT g, b{whole} FROM (SELECT *, {bucket} AS b FROM ({events})) GROUP BY GROUPING SETS ((g, b), (g))"""


def _people_sql(plan: Plan, events: str, bucket: str, buckets: int) -> str:
    """The cells of series of people: each person's buckets are bits of a number. It is half the price of DISTINCT."""
    numbers = range(len(plan.series))
    marks = ", ".join(
        f"bit_or(1::BIGINT << {bucket}::INTEGER) FILTER (WHERE p{index}) AS m{index}" for index in numbers
    )
    counts = ", ".join(
        f"unnest([{', '.join(f'sum((m{index} >> {b}) & 1)' for b in range(buckets))}, count(m{index})])"
        for index in numbers
    )
    return f"""
WITH person AS (SELECT g, uid, {marks} FROM ({events}) GROUP BY g, uid)
SELECT g, unnest([{", ".join(map(str, range(buckets)))}, NULL]), {counts} FROM (
    SELECT g, {", ".join(f"CASE WHEN uid IS NOT NULL THEN m{index} END AS m{index}" for index in numbers)} FROM person
) GROUP BY g"""


def sessions_sql(plan: Plan, period: Period, top: Sequence[Values]) -> str:
    """The cells of the series of sessions: rows of `g, b`, the number of the series, and the number of sessions.

    An event that is of no other series and combination than the one before it, in the same session, changes nothing.
    """
    numbers = [index for index, one in enumerate(plan.series) if one.is_of_sessions]
    events = _ranked(plan, _events(plan, period, only_people=True, of_any_series=True), top)
    flags = [f"p{index}" for index in numbers]
    firsts = ", ".join(f"min(t) FILTER (WHERE p{index}) AS first{index}" for index in numbers)
    found = " UNION ALL ".join(f"SELECT g, first{index} AS first, {index} AS series FROM session" for index in numbers)
    bucket, groups = "NULL", "g, b, series"
    if period.buckets:
        bucket, groups = period.buckets.index("first"), "GROUPING SETS ((g, b, series), (g, series))"
    window = "OVER (PARTITION BY uid ORDER BY t)"
    same = " AND ".join(f"lag({column}) {window} = {column}" for column in ("g", *flags))
    return f"""
WITH gap AS (
    SELECT g, uid, t, {", ".join(flags)}, t - lag(t) {window} > {SESSION_GAP} AS is_first, {same} AS is_same
    FROM ({events})
), numbered AS (
    SELECT *, count(*) FILTER (WHERE is_first) {window} AS number FROM gap
    WHERE coalesce(is_first OR NOT is_same, TRUE)
), session AS MATERIALIZED (
    SELECT g, {firsts} FROM numbered WHERE {" OR ".join(flags)} GROUP BY g, uid, number
)
SELECT g, b, series, count(*) FROM (SELECT g, {bucket} AS b, series FROM ({found}) WHERE first IS NOT NULL)
GROUP BY {groups}"""


def people_sql(plan: Plan, number: int, part: Range, combination: str | None) -> str:
    """The people of the events of a series, of a combination (`is_of` or `is_of_rest`) or of all of them."""
    condition = f" AND {combination}" if combination else ""
    events = _events(plan, Period(part, None), only_people=True)
    return f"SELECT DISTINCT uid FROM ({events}) AS event WHERE p{number}{condition}"


def is_of(values: Values) -> str:
    """Whether an event is of a combination of values."""
    return " AND ".join(f"k{index} IS NOT DISTINCT FROM {_text(value)}" for index, value in enumerate(values))


def is_of_rest(plan: Plan) -> str:
    """Whether an event is of none of the most frequent combinations."""
    same = " AND ".join(f"top.k{index} IS NOT DISTINCT FROM event.k{index}" for index in range(len(plan.breakdowns)))
    return f"NOT EXISTS (SELECT 1 FROM ({top_sql(plan)}) AS top WHERE {same})"


def _events(plan: Plan, period: Period, *, only_people: bool = False, of_any_series: bool = False) -> str:
    columns = ["t", "uid"]
    for index, one in enumerate(plan.series):
        columns.append(f"{one.selector.predicate} AS p{index}")
        if one.measured is not None:
            value = one.measured.number() if one.measure in NUMERIC else one.measured.text()
            columns += [f"{value} AS v{index}", f"{one.measured.is_set()} AS s{index}"]
    columns += [f"{breakdown.text()} AS k{index}" for index, breakdown in enumerate(plan.breakdowns)]
    conditions = [f"t >= {period.range.start}", f"t < {period.range.end}"]
    if not of_any_series:
        conditions.append(f"({' OR '.join(one.selector.predicate for one in plan.series)})")
    if only_people:
        conditions.append("uid IS NOT NULL")
    return f"SELECT {', '.join(columns)} FROM src WHERE {' AND '.join(conditions)}"


def _ranked(plan: Plan, events: str, top: Sequence[Values]) -> str:
    """The events with the rank `g` of their combination."""
    if not plan.breakdowns or not top:
        return f"SELECT *, 0 AS g FROM ({events})"
    names = ", ".join(f"top{index}" for index in range(len(plan.breakdowns)))
    rows = ", ".join(f"({rank}, {', '.join(map(_text, values))})" for rank, values in enumerate(top))
    same = " AND ".join(f"k{index} IS NOT DISTINCT FROM top{index}" for index in range(len(plan.breakdowns)))
    return f"""
SELECT event.*, coalesce(rank, {len(top)}) AS g
FROM ({events}) AS event LEFT JOIN (VALUES {rows}) AS top(rank, {names}) ON {same}"""


def _keys(plan: Plan) -> str:
    return ", ".join(f"k{index}" for index in range(len(plan.breakdowns)))


def _order(plan: Plan, events: str) -> str:
    return ", ".join([f"{events} DESC", *(f"k{index} NULLS LAST" for index in range(len(plan.breakdowns)))])


def _text(value: str | None) -> str:
    return "NULL::VARCHAR" if value is None else literal(value)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a cell: an aggregate of events, and the aggregate that makes one of several, if there is any."""

    aggregate: str
    merge: str = "sum"


def _columns(plan: Plan) -> list[_Column]:
    return [
        column for index, one in enumerate(plan.series) for column in _columns_of(one, index, len(plan.series) == 1)
    ]


def _columns_of(series: Series, index: int, is_only: bool) -> Iterator[_Column]:
    measure, value = series.measure, f"v{index}"
    belongs, filtered = ("TRUE", "") if is_only else (f"p{index}", f" FILTER (WHERE p{index})")
    if measure == TrendMeasure.TREND_MEASURE_EVENTS:
        yield _Column(f"count(*){filtered}")
    elif measure == TrendMeasure.TREND_MEASURE_PEOPLE:
        yield _Column(f"count(DISTINCT uid){filtered}", "")
    elif measure == TrendMeasure.TREND_MEASURE_EVENTS_PER_PERSON:
        yield _Column(f"count(uid){filtered}")
        yield _Column(f"count(DISTINCT uid){filtered}", "")
    elif measure == TrendMeasure.TREND_MEASURE_DISTINCT:
        yield _Column(f"count(DISTINCT {value}){filtered}", "")
    elif measure in PERCENTILES:
        yield _Column(f"quantile_cont({value}, {PERCENTILES[measure]}){filtered}", "")
    for aggregate, merge in _AGGREGATES.get(measure, {}).items():
        yield _Column(f"{aggregate}({value}){filtered}", merge)
    if measure in NUMERIC:
        yield _Column(f"count(*) FILTER (WHERE {belongs} AND s{index} AND {value} IS NULL)")


def _parts(columns: Sequence[_Column]) -> str:
    return "".join(f", {column.aggregate} AS part{index}" for index, column in enumerate(columns))


def _merged(columns: Sequence[_Column]) -> str:
    return "".join(f", {column.merge}(part{index})" for index, column in enumerate(columns))
