"""A question of retention as it is computed: what request.py makes of a request, and the SQL and the answer of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from nimbus.v1.retention_pb2 import RetentionAlignment, RetentionCounting
from nimbus_server.analyses.retention.measure import Measure
from nimbus_server.analyses.selector import Selector
from nimbus_server.analyses.time_range import Range
from nimbus_server.analyses.zone import Buckets


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of every cohort: the periods from `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid request.

    `units` are those of the cohorts and those of their periods, and one more, at whose start the last period of
    the last cohort ends. `length` is that of a rolling period, in microseconds. `cells` are in order, without overlap.
    `cohort_by`, `alignment`, `counting` and `mean` are values of the enums of the request, never the unspecified one.
    `semantics` is that of the response.
    """

    start: Selector
    returning: Selector
    range: Range
    units: Buckets
    cohorts: int
    length: int
    cells: tuple[Cell, ...]
    cohort_by: int
    alignment: int
    counting: int
    mean: int
    measure: Measure | None
    semantics: Mapping[str, str]

    @property
    def last_period(self) -> int:
        """The last period that is asked for."""
        return self.cells[-1].last

    @property
    def is_calendar(self) -> bool:
        """Whether periods begin with the units of the time zone."""
        return self.alignment == RetentionAlignment.RETENTION_ALIGNMENT_CALENDAR

    def period_end(self, cohort: int, period: int) -> int:
        """The moment at which a period is over for everybody who can be in a cohort."""
        if self.is_calendar:
            return self.units.starts[cohort + period + 1]
        return min(self.units.starts[cohort + 1], self.range.end) + (period + 1) * self.length

    @property
    def returns_end(self) -> int | None:
        """The end of the time in which returns count; None for no end."""
        if self.counting == RetentionCounting.RETENTION_COUNTING_ON_OR_AFTER:
            return None
        return self.period_end(self.cohorts - 1, self.last_period)
