"""The people behind a number of a funnel."""

from nimbus.v1.people_pb2 import FunnelCell
from nimbus_server.analyses.funnel import sql
from nimbus_server.analyses.funnel.plan import PEOPLE, Plan
from nimbus_server.analyses.literal import literal
from nimbus_server.clock import micros
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.rpc.fields import int_field, time_field


def people_of_cell(plan: Plan, cell: FunnelCell) -> str:
    """SQL with one column `uid`: the people behind the cell. Raises NimbusError with FIELD_INVALID."""
    if plan.counting != PEOPLE:
        raise field_error(
            Reason.FIELD_INVALID, "funnel.counting", "funnel.counting must be PEOPLE where people are asked for."
        )
    step = int_field("funnel_cell.step", cell.step, 1, len(plan.steps))
    conditions = [f"t{step} IS NOT NULL"]
    if cell.dropped:
        if step == 1:
            raise _invalid("funnel_cell.dropped", "is for the steps after the first.")
        conditions = [f"t{plan.before(step)} IS NOT NULL", f"t{step} IS NULL"]
    if cell.HasField("ts"):
        conditions.append(f"bucket = {_bucket(plan, cell)}")
    conditions += _value(plan, cell)
    return sql.people_sql(plan, " AND ".join(conditions))


def _bucket(plan: Plan, cell: FunnelCell) -> int:
    start = micros(time_field("funnel_cell.ts", cell.ts))
    if plan.buckets is None or start not in plan.buckets.starts:
        raise _invalid("funnel_cell.ts", "must be the start of a bucket of the answer.")
    return plan.buckets.starts.index(start)


def _value(plan: Plan, cell: FunnelCell) -> list[str]:
    for field, is_given in (
        ("is_other", cell.is_other),
        ("is_unset", cell.is_unset),
        ("value", cell.HasField("value")),
    ):
        if is_given and plan.breakdown is None:
            raise _invalid(f"funnel_cell.{field}", "is for questions with a breakdown.")
    if cell.is_other:
        return [f"g = {sql.OTHER}"]
    if cell.is_unset:
        return ["b IS NULL"]
    if not cell.HasField("value"):
        return []
    if "\0" in cell.value:
        raise _invalid("funnel_cell.value", "must not contain NUL.")
    return [f"b = {literal(cell.value)}"]


def _invalid(field: str, rest: str) -> NimbusError:
    return field_error(Reason.FIELD_INVALID, field, f"{field} {rest}")
