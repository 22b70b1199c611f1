"""The SQL of retention.

`e` has the events that start or return (`starts`, `returns`) of anybody, with the number `u` of their unit. `b` has a
row for each person and cohort: the number `c` of its unit, and the time `t` and the place of the start event. `hits`
has rows of `uid, c, cell`: the person of the cohort has a return for the cell; for those before or after it too, where
counting is ON_OR_AFTER or ON_OR_BEFORE.

The place of an event is (ts, seq) as one number, so that min and max find the first and the last.
"""

from collections.abc import Mapping

from nimbus.v1.retention_pb2 import RetentionCohortBy, RetentionCounting
from nimbus_server.analyses.retention.plan import Cell, Plan

_PLACE = f"(t::HUGEINT * {2**63} + seq)"
# How the cells of hits compare with the cell that they count for, where they must not be the same.
_COUNTS: Mapping[int, str] = {
    RetentionCounting.RETENTION_COUNTING_ON_OR_AFTER: ">=",
    RetentionCounting.RETENTION_COUNTING_ON_OR_BEFORE: "<=",
}
# Cells whose people are marked in one number of 64 bits.
_MARKS = 62


def people_sql(plan: Plan) -> str:
    """Rows of cohorts that have people: the number of the unit, the size, and for each cell who returned."""
    return f"""
WITH {_starts(plan)}, {_hits(plan)}, {_marks(plan)},
size AS (SELECT c, count(*) AS size FROM b GROUP BY c),
returned AS (SELECT c, {_returned(plan)} FROM marks GROUP BY c)
SELECT * FROM size LEFT JOIN returned USING (c)"""


def values_sql(plan: Plan) -> str:
    """Rows of the number of a cohort, that of a cell, and what is measured of the returning events there."""
    assert plan.measure is not None  # noqa: S101 - it is for questions that have one
    return f"""
WITH {_starts(plan)}, {_event_hits(plan, "e.v")}
SELECT c, cell, CAST({plan.measure.number} AS DOUBLE) FROM hits GROUP BY c, cell"""


def cohort_sql(plan: Plan, cohort: int) -> str:
    """The people of a cohort, as rows of `uid`."""
    return f"WITH {_starts(plan)} SELECT uid FROM b WHERE c = {cohort}"


def returned_sql(plan: Plan, cohort: int, cell: int, *, dropped: bool) -> str:
    """The people of a cohort who returned for a cell, or who did not, as rows of `uid`."""
    counts = _COUNTS.get(plan.counting, "=")
    returned = f"SELECT uid FROM hits WHERE c = {cohort} AND cell {counts} {cell}"
    which = f"NOT IN ({returned})" if dropped else f"IN ({returned})"
    return f"WITH {_starts(plan)}, {_hits(plan)} SELECT uid FROM b WHERE c = {cohort} AND uid {which}"


def _starts(plan: Plan) -> str:
    """The CTEs `e` and `b`."""
    start, returning = plan.start.predicate, plan.returning.predicate
    if start == returning:
        either, starts, returns = start, "TRUE", "TRUE"
    else:
        either, starts, returns = f"({start} OR {returning})", start, returning
    unit = f"{plan.units.index('t')}::INTEGER"
    columns = ["uid", "t", "seq", f"{unit} AS u", f"{starts} AS starts", f"{returns} AS returns"]
    if plan.measure:
        columns.append(f"{plan.measure.value} AS v")
    first = (
        f"SELECT uid, min(u) AS c, min(t) AS t, min({_PLACE}) AS place FROM e WHERE starts AND e.t < {plan.range.end}"
    )
    in_range = f"e.t >= {plan.range.start}"
    if plan.cohort_by == RetentionCohortBy.RETENTION_COHORT_BY_FIRST_EVER:
        first = f"{first} GROUP BY uid HAVING min({in_range})"
    elif plan.cohort_by == RetentionCohortBy.RETENTION_COHORT_BY_EVERY:
        first = f"{first} AND {in_range} GROUP BY uid, u"
    else:
        first = f"{first} AND {in_range} GROUP BY uid"
    return f"""
e AS MATERIALIZED (SELECT {", ".join(columns)} FROM src WHERE uid IS NOT NULL AND {either}),
b AS MATERIALIZED ({first})"""


def _hits(plan: Plan) -> str:
    """The CTE `hits`, from as few rows as there can be."""
    if plan.counting == RetentionCounting.RETENTION_COUNTING_ON_OR_AFTER:
        return _last_hits(plan)
    if plan.is_calendar and plan.cohort_by == RetentionCohortBy.RETENTION_COHORT_BY_EVERY:
        return _unit_hits(plan)
    return _event_hits(plan)


def _last_hits(plan: Plan) -> str:
    """One for each person and cohort: the person's last return is in the latest period."""
    return f"""
r AS (SELECT uid, max(u) AS u, max(t) AS t, max({_PLACE}) AS place FROM e WHERE returns GROUP BY uid),
hits AS (
    SELECT uid, c, least({_period(plan, "r")}, {plan.last_period}) AS cell FROM r JOIN b USING (uid)
    WHERE r.place > b.place
)"""


def _unit_hits(plan: Plan) -> str:
    """From the last return in each unit. In the unit of the start event, it says whether any is after that."""
    return f"""
r AS MATERIALIZED (SELECT uid, u, max({_PLACE}) AS place FROM e WHERE returns GROUP BY uid, u),
hits AS (
    SELECT uid, c, {_cell(plan)} AS cell FROM (
        SELECT uid, c, u - c AS k FROM r JOIN b USING (uid)
        WHERE u BETWEEN c AND c + {plan.last_period} AND r.place > b.place
    ) WHERE cell IS NOT NULL
)"""


def _event_hits(plan: Plan, *columns: str) -> str:
    """One for each return and cohort, with further columns of `e`."""
    more = "".join(f", {column}" for column in columns)
    return f"""
hits AS (
    SELECT * EXCLUDE (k), {_cell(plan)} AS cell FROM (
        SELECT uid, c, {_period(plan, "e")} AS k{more} FROM e JOIN b USING (uid)
        WHERE returns AND (e.t > b.t OR (e.t = b.t AND e.t::HUGEINT * {2**63} + e.seq > b.place))
    ) WHERE k <= {plan.last_period} AND cell IS NOT NULL
)"""


def _period(plan: Plan, returns: str) -> str:
    """SQL: the period in which a return of a table lies, after the start event in `b`."""
    return f"{returns}.u - b.c" if plan.is_calendar else f"({returns}.t - b.t) // {plan.length}"


def _cell(plan: Plan) -> str:
    """SQL: the number of the cell with the period `k`, NULL where there is none."""
    if plan.cells == tuple(Cell(number, number) for number in range(len(plan.cells))):
        return "k"
    cells = (f"WHEN k BETWEEN {cell.first} AND {cell.last} THEN {number}" for number, cell in enumerate(plan.cells))
    return f"CASE {' '.join(cells)} END"


def _marks(plan: Plan) -> str:
    """The CTE `marks`: in one row for each person and cohort, the cells of their hits."""
    if plan.counting == RetentionCounting.RETENTION_COUNTING_ON_OR_AFTER:
        columns = "max(cell) AS latest"
    elif plan.counting == RetentionCounting.RETENTION_COUNTING_ON_OR_BEFORE:
        columns = "min(cell) AS earliest"
    else:
        columns = ", ".join(f"{_mark(plan, block)} AS m{block}" for block in range(_blocks(plan)))
    if plan.cohort_by == RetentionCohortBy.RETENTION_COHORT_BY_EVERY:
        return f"marks AS (SELECT uid, c, {columns} FROM hits GROUP BY uid, c)"
    # A person is in one cohort.
    return f"marks AS (SELECT uid, any_value(c) AS c, {columns} FROM hits GROUP BY uid)"


def _mark(plan: Plan, block: int) -> str:
    """SQL: a number with a bit for each cell of a block. It is half the price of rows that are told apart."""
    if _blocks(plan) == 1:
        return "bit_or(1::BIGINT << cell::INTEGER)"
    return f"bit_or(CASE WHEN cell // {_MARKS} = {block} THEN 1::BIGINT << (cell % {_MARKS})::INTEGER ELSE 0 END)"


def _blocks(plan: Plan) -> int:
    return -(-len(plan.cells) // _MARKS)


def _returned(plan: Plan) -> str:
    """SQL: for each cell, how many of the people in `marks`."""
    cells = range(len(plan.cells))
    if plan.counting == RetentionCounting.RETENTION_COUNTING_ON_OR_AFTER:
        return ", ".join(f"count(*) FILTER (WHERE latest >= {cell})" for cell in cells)
    if plan.counting == RetentionCounting.RETENTION_COUNTING_ON_OR_BEFORE:
        return ", ".join(f"count(*) FILTER (WHERE earliest <= {cell})" for cell in cells)
    return ", ".join(f"sum((m{cell // _MARKS} >> {cell % _MARKS}) & 1)" for cell in cells)
