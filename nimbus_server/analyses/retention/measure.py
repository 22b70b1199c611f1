"""What is measured of the returning events of a cell, in place of people."""

from collections.abc import Mapping
from dataclasses import dataclass

from nimbus.v1.trend_pb2 import TrendMeasure
from nimbus_server.analyses.property import Property, property_field
from nimbus_server.errors import Reason, field_error

# SQL over the columns `uid` and `v`, what is measured of an event.
_OF_EVENTS: Mapping[int, str] = {
    TrendMeasure.TREND_MEASURE_EVENTS: "count(*)",
    TrendMeasure.TREND_MEASURE_PEOPLE: "count(DISTINCT uid)",
    TrendMeasure.TREND_MEASURE_EVENTS_PER_PERSON: "count(*) / count(DISTINCT uid)",
}
_OF_NUMBERS: Mapping[int, str] = {
    TrendMeasure.TREND_MEASURE_SUM: "sum(v)",
    TrendMeasure.TREND_MEASURE_AVERAGE: "avg(v)",
    TrendMeasure.TREND_MEASURE_MINIMUM: "min(v)",
    TrendMeasure.TREND_MEASURE_MAXIMUM: "max(v)",
    TrendMeasure.TREND_MEASURE_MEDIAN: "quantile_cont(v, 0.5)",
    TrendMeasure.TREND_MEASURE_P90: "quantile_cont(v, 0.9)",
    TrendMeasure.TREND_MEASURE_P95: "quantile_cont(v, 0.95)",
    TrendMeasure.TREND_MEASURE_P99: "quantile_cont(v, 0.99)",
}
_OF_TEXTS: Mapping[int, str] = {TrendMeasure.TREND_MEASURE_DISTINCT: "count(DISTINCT v)"}
_SQL = {**_OF_EVENTS, **_OF_NUMBERS, **_OF_TEXTS}
# Their number where there is nothing to measure; that of the others is missing.
_ZERO_WHERE_EMPTY = {
    TrendMeasure.TREND_MEASURE_EVENTS,
    TrendMeasure.TREND_MEASURE_PEOPLE,
    TrendMeasure.TREND_MEASURE_DISTINCT,
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure; `measured` is the property of those that have one."""

    measure: int
    measured: Property | None

    @property
    def value(self) -> str:
        """SQL: what is measured of an event."""
        if self.measured is None:
            return "NULL"
        return self.measured.text() if self.measure in _OF_TEXTS else self.measured.number()

    @property
    def number(self) -> str:
        """SQL: the number of events with the columns `uid` and `v`, NULL where there is none."""
        return _SQL[self.measure]

    @property
    def of_nothing(self) -> float:
        """The number of a cell with nothing to measure; NaN says that it is missing."""
        return 0.0 if self.measure in _ZERO_WHERE_EMPTY else float("nan")


def read_measure(measure: int, path: str) -> Measure | None:
    """The measure in the fields `measure` and `property`. Raises NimbusError as property_field does."""
    if measure == TrendMeasure.TREND_MEASURE_UNSPECIFIED or measure in _OF_EVENTS:
        if path:
            raise field_error(
                Reason.FIELD_INVALID, "property", "property is for a measure of a property: SUM to P99, or DISTINCT."
            )
        return Measure(measure, None) if measure else None
    if measure not in _SQL:
        raise field_error(Reason.FIELD_INVALID, "measure", "measure must be one of its named values, and not SESSIONS.")
    return Measure(measure, property_field("property", path))
