"""The people behind a number of a trend."""

from nimbus.v1.people_pb2 import TrendCell
from nimbus_server.analyses.time_range import Range
from nimbus_server.analyses.trend import sql
from nimbus_server.analyses.trend.plan import Plan
from nimbus_server.clock import micros
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.rpc.fields import int_field, time_field


def people_of_cell(plan: Plan, cell: TrendCell) -> str:
    """SQL with one column `uid`: the people of the events behind the cell. Raises NimbusError with FIELD_INVALID."""
    number = int_field("trend_cell.series", cell.series, 0, len(plan.series) - 1)
    return sql.people_sql(plan, number, _part(plan, cell), _combination(plan, cell))


def _part(plan: Plan, cell: TrendCell) -> Range:
    asked, buckets = plan.period.range, plan.period.buckets
    if not cell.HasField("ts"):
        return asked
    start = micros(time_field("trend_cell.ts", cell.ts))
    if buckets is None or start not in buckets.starts:
        raise _invalid("trend_cell.ts", "must be the start of a bucket of the answer.")
    ends = [*buckets.starts[1:], asked.end]
    return Range(max(start, asked.start), ends[buckets.starts.index(start)])


def _combination(plan: Plan, cell: TrendCell) -> str | None:
    count = len(plan.breakdowns)
    if cell.is_other:
        if not count:
            raise _invalid("trend_cell.is_other", "is for questions with breakdowns.")
        return sql.is_of_rest(plan)
    unset = set(cell.unset)
    if not cell.breakdown and not unset:
        return None
    if len(cell.breakdown) != count:
        raise _invalid("trend_cell.breakdown", f"must have a value for each of the question's {count} breakdowns.")
    if not unset <= set(range(count)):
        raise _invalid("trend_cell.unset", "must be numbers of breakdowns, the first of which is 0.")
    if any("\0" in value for value in cell.breakdown):
        raise _invalid("trend_cell.breakdown", "must not contain NUL.")
    return sql.is_of(tuple(None if index in unset else value for index, value in enumerate(cell.breakdown)))


def _invalid(field: str, rest: str) -> NimbusError:
    return field_error(Reason.FIELD_INVALID, field, f"{field} {rest}")
