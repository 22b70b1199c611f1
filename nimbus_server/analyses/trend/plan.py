"""A trend as it is computed: what request.py makes of a request, and the SQL and the answer are made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from nimbus.v1.trend_pb2 import TrendMeasure
from nimbus_server.analyses.property import Property
from nimbus_server.analyses.selector import Selector
from nimbus_server.analyses.time_range import Range
from nimbus_server.analyses.trend.formula import Formula
from nimbus_server.analyses.zone import Buckets

PERCENTILES = {
    TrendMeasure.TREND_MEASURE_MEDIAN: 0.5,
    TrendMeasure.TREND_MEASURE_P90: 0.9,
    TrendMeasure.TREND_MEASURE_P95: 0.95,
    TrendMeasure.TREND_MEASURE_P99: 0.99,
}
# Measures of a number: what is set and is none is ignored, and counted.
NUMERIC = {
    TrendMeasure.TREND_MEASURE_SUM,
    TrendMeasure.TREND_MEASURE_AVERAGE,
    TrendMeasure.TREND_MEASURE_MINIMUM,
    TrendMeasure.TREND_MEASURE_MAXIMUM,
    *PERCENTILES,
}
# Their value where there are no events is 0, that of the others is missing.
ZERO_WHERE_EMPTY = {
    TrendMeasure.TREND_MEASURE_EVENTS,
    TrendMeasure.TREND_MEASURE_PEOPLE,
    TrendMeasure.TREND_MEASURE_SESSIONS,
    TrendMeasure.TREND_MEASURE_DISTINCT,
}
# Their value is a quotient of two numbers.
RATIOS = {TrendMeasure.TREND_MEASURE_EVENTS_PER_PERSON, TrendMeasure.TREND_MEASURE_AVERAGE}
# Their value for a time follows from those of its parts, and so does that of sessions, which are counted apart.
ADDITIVE = {
    TrendMeasure.TREND_MEASURE_EVENTS,
    TrendMeasure.TREND_MEASURE_SESSIONS,
    TrendMeasure.TREND_MEASURE_SUM,
    TrendMeasure.TREND_MEASURE_AVERAGE,
    TrendMeasure.TREND_MEASURE_MINIMUM,
    TrendMeasure.TREND_MEASURE_MAXIMUM,
}


@dataclass(frozen=True, slots=True)
class Series:
    """What is measured of which events. `measured` is the property of the measures that have one."""

    selector: Selector
    measure: "TrendMeasure.ValueType"
    measured: Property | None

    @property
    def columns(self) -> int:
        """How many columns it has in a cell: its number, or numerator and denominator, and the events ignored."""
        return 0 if self.is_of_sessions else 1 + (self.measure in RATIOS) + (self.measure in NUMERIC)

    @property
    def is_of_sessions(self) -> bool:
        """Whether it counts sessions, which a statement of its own finds."""
        return self.measure == TrendMeasure.TREND_MEASURE_SESSIONS


@dataclass(frozen=True, slots=True)
class LabelledFormula:
    """A formula and what the answer calls it."""

    label: str
    formula: Formula


@dataclass(frozen=True, slots=True)
class Period:
    """A range and its buckets, None for a trend of totals alone."""

    range: Range
    buckets: Buckets | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid request. `semantics` is that of the response."""

    series: tuple[Series, ...]
    formulas: tuple[LabelledFormula, ...]
    period: Period
    compared: Period | None
    breakdowns: tuple[Property, ...]
    breakdown_limit: int
    semantics: Mapping[str, str]
