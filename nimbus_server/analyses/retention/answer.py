"""The question QueryRetention: what it reads, and how the rows of its statements become the response."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimbus.v1.people_pb2 import RetentionCell
from nimbus.v1.retention_pb2 import (
    QueryRetentionRequest,
    QueryRetentionResponse,
    RetentionCohort,
    RetentionCohortBy,
    RetentionMean,
)
from nimbus_server.analyses.question import Ask, Asked, AsOf, Needs
from nimbus_server.analyses.retention import sql
from nimbus_server.analyses.retention.plan import Plan
from nimbus_server.analyses.retention.request import read_plan
from nimbus_server.clock import micros, moment
from nimbus_server.errors import Reason, field_error
from nimbus_server.rpc.fields import int_field, time_field, timestamp

# The mean of no cohorts.
NO_SHARE = -1.0


@dataclass(frozen=True, slots=True)
class Retention:
    """A question of QueryRetention."""

    plan: Plan

    @property
    def needs(self) -> Needs:
        """The events of the range and of the periods after it; from the first of all on for FIRST_EVER."""
        plan = self.plan
        is_first_ever = plan.cohort_by == RetentionCohortBy.RETENTION_COHORT_BY_FIRST_EVER
        names = (plan.start.names, plan.returning.names)
        measured = plan.measure.measured if plan.measure else None
        return Needs(
            start=None if is_first_ever else plan.range.start,
            end=plan.returns_end,
            names=None if None in names else frozenset().union(*(some for some in names if some is not None)),
            properties=plan.start.properties | plan.returning.properties | frozenset([measured] if measured else []),
        )

    @property
    def semantics(self) -> Mapping[str, str]:
        """The rules in force, by the names of the request's fields."""
        return self.plan.semantics

    def answer(self, ask: Ask, as_of: AsOf) -> QueryRetentionResponse:
        """The response, from one statement, or two where there is a measure."""
        plan = self.plan
        sizes, returned = [0] * plan.cohorts, [[0] * len(plan.cells) for _ in range(plan.cohorts)]
        for number, size, *counts in ask(sql.people_sql(plan)):
            sizes[number], returned[number] = size, [int(count or 0) for count in counts]
        values = self._values(ask)
        cohorts = [
            RetentionCohort(
                start=timestamp(moment(plan.units.starts[number])),
                size=sizes[number],
                returned=returned[number],
                complete=[plan.period_end(number, cell.last) <= micros(as_of.at) for cell in plan.cells],
                values=values[number],
            )
            for number in range(plan.cohorts)
        ]
        return QueryRetentionResponse(
            as_of_position=as_of.position,
            complete_through=timestamp(as_of.at),
            semantics=plan.semantics,
            cohorts=cohorts,
            mean=[self._mean(cohorts, cell) for cell in range(len(plan.cells))],
        )

    def people(self, cell: RetentionCell) -> str:
        """SQL with one column `uid`: the people behind a cell.

        Raises NimbusError with FIELD_REQUIRED or FIELD_INVALID.
        """
        plan = self.plan
        if not cell.HasField("start"):
            raise field_error(
                Reason.FIELD_REQUIRED, "retention_cell.start", "retention_cell.start is required: that of a cohort."
            )
        start = micros(time_field("retention_cell.start", cell.start))
        if start not in plan.units.starts[: plan.cohorts]:
            raise field_error(
                Reason.FIELD_INVALID,
                "retention_cell.start",
                "retention_cell.start must be the start of a cohort of the answer.",
            )
        cohort = plan.units.starts.index(start)
        if cell.HasField("period"):
            period = int_field("retention_cell.period", cell.period, 0, len(plan.cells) - 1)
            return sql.returned_sql(plan, cohort, period, dropped=cell.dropped)
        if cell.dropped:
            raise field_error(
                Reason.FIELD_REQUIRED, "retention_cell.period", "retention_cell.period is required beside dropped."
            )
        return sql.cohort_sql(plan, cohort)

    def _values(self, ask: Ask) -> list[list[float]]:
        """For each cohort the number of each cell; none without a measure."""
        plan = self.plan
        if plan.measure is None:
            return [[] for _ in range(plan.cohorts)]
        values = [[plan.measure.of_nothing] * len(plan.cells) for _ in range(plan.cohorts)]
        for number, cell, value in ask(sql.values_sql(plan)):
            if value is not None:
                # Beyond the range of a double there is no number.
                values[number][cell] = value if math.isfinite(value) else math.nan
        return values

    def _mean(self, cohorts: Sequence[RetentionCohort], cell: int) -> float:
        complete = [cohort for cohort in cohorts if cohort.complete[cell]]
        if self.plan.measure:
            return _simple_mean([cohort.values[cell] for cohort in complete], math.nan)
        people = sum(cohort.size for cohort in complete)
        if self.plan.mean == RetentionMean.RETENTION_MEAN_POOLED:
            return sum(cohort.returned[cell] for cohort in complete) / people if people else NO_SHARE
        return _simple_mean([cohort.returned[cell] / cohort.size for cohort in complete if cohort.size], NO_SHARE)


def read(request: QueryRetentionRequest, asked: Asked) -> Retention:
    """The question of a request. Raises NimbusError as read_plan does."""
    return Retention(read_plan(request, asked))


def _simple_mean(numbers: Sequence[float], of_none: float) -> float:
    known = [number for number in numbers if not math.isnan(number)]
    return sum(number / len(known) for number in known) if known else of_none
