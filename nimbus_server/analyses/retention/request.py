"""What QueryRetention is asked, as a plan."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from nimbus.v1.question_pb2 import Preset, WeekStart
from nimbus.v1.retention_pb2 import (
    QueryRetentionRequest,
    RetentionAlignment,
    RetentionCohortBy,
    RetentionCounting,
    RetentionMean,
    RetentionUnit,
)
from nimbus.v1.trend_pb2 import TrendMeasure
from nimbus_server.analyses.question import Asked
from nimbus_server.analyses.retention.measure import Measure, read_measure
from nimbus_server.analyses.retention.plan import Cell, Plan
from nimbus_server.analyses.retention.preset import RULES, Rules
from nimbus_server.analyses.selector import Selector, read_selector
from nimbus_server.analyses.time_range import MOMENT_MAX, Range, read_range
from nimbus_server.analyses.zone import Buckets, Zone
from nimbus_server.clock import DAY, MINUTE, moment
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.rpc.fields import int_field

COHORTS_MAX = 1_000
PERIODS_DEFAULT, PERIODS_MAX = 7, 366
BRACKETS_MAX = 100
# About 3 MB of a response; clients of gRPC take 4 MB unless they are told otherwise.
CELLS_MAX = 250_000


@dataclass(frozen=True, slots=True)
class _Unit:
    """The width of its buckets, the length of a rolling period, and what no unit of a time zone is longer than."""

    width: str
    length: int
    longest: int


_UNITS: Mapping[int, _Unit] = {
    RetentionUnit.RETENTION_UNIT_HOUR: _Unit("1h", 60 * MINUTE, 60 * MINUTE),
    # A day that is lived twice, at the date line.
    RetentionUnit.RETENTION_UNIT_DAY: _Unit("1d", DAY, 2 * DAY),
    RetentionUnit.RETENTION_UNIT_WEEK: _Unit("1w", 7 * DAY, 8 * DAY),
    RetentionUnit.RETENTION_UNIT_MONTH: _Unit("1mo", 30 * DAY, 32 * DAY),
}
_ENUMS: Mapping[str, Any] = {
    "preset": Preset,
    "unit": RetentionUnit,
    "cohort_by": RetentionCohortBy,
    "alignment": RetentionAlignment,
    "counting": RetentionCounting,
    "mean": RetentionMean,
    "week_start": WeekStart,
    "measure": TrendMeasure,
}


def read_plan(request: QueryRetentionRequest, asked: Asked) -> Plan:
    """The plan of a request.

    Raises NimbusError with FIELD_REQUIRED, FIELD_TOO_LONG or FIELD_INVALID, and the path of what is wrong, and with
    QUESTION_TOO_LARGE where the answer would be too large.
    """
    for field, values in _ENUMS.items():
        if getattr(request, field) not in values.values():
            raise field_error(Reason.FIELD_INVALID, field, f"{field} must be one of its named values.")
    rules = _rules(request)
    zone = Zone(request.timezone or asked.timezone)
    # `return` is a word of Python.
    start, returning = (read_selector(field, getattr(request, field)) for field in ("start", "return"))
    kind = request.unit or RetentionUnit.RETENTION_UNIT_DAY
    unit = _UNITS[kind]
    cells = _brackets(request) or _periods(request)
    measure = read_measure(request.measure, request.property)
    if measure and rules.counting != RetentionCounting.RETENTION_COUNTING_ON:
        raise field_error(
            Reason.FIELD_INVALID,
            "measure",
            "measure goes with counting ON, or with brackets, alone: set counting to ON.",
        )
    asked_range = read_range(request.range, zone, asked.now, rules.week_start)
    units, cohorts = _units(zone, unit, asked_range, cells[-1].last, rules.week_start)
    if cohorts * len(cells) > CELLS_MAX:
        raise NimbusError(
            Reason.QUESTION_TOO_LARGE,
            f"The answer has {cohorts * len(cells):,} cells, and may have {CELLS_MAX:,}. Ask for a shorter range, fewer "
            "periods or a longer unit.",
        )
    return Plan(
        start=start,
        returning=returning,
        range=asked_range,
        units=units,
        cohorts=cohorts,
        length=unit.length,
        cells=cells,
        cohort_by=rules.cohort_by,
        alignment=rules.alignment,
        counting=rules.counting,
        mean=rules.mean,
        measure=measure,
        semantics=_semantics(zone, asked_range, kind, cells, request, rules, start, returning, measure),
    )


def _rules(request: QueryRetentionRequest) -> Rules:
    """The rules in force: those of the preset where the request leaves them unset."""
    preset = RULES[request.preset]
    rules = Rules(
        **{field.name: getattr(request, field.name) or getattr(preset, field.name) for field in fields(Rules)}
    )
    if not request.brackets:
        return rules
    if request.counting not in {
        RetentionCounting.RETENTION_COUNTING_UNSPECIFIED,
        RetentionCounting.RETENTION_COUNTING_ON,
    }:
        raise field_error(Reason.FIELD_INVALID, "counting", "counting must be left out, or be ON, beside brackets.")
    # A return in any period of a bracket counts for it, whatever the preset.
    return replace(rules, counting=RetentionCounting.RETENTION_COUNTING_ON)


def _periods(request: QueryRetentionRequest) -> tuple[Cell, ...]:
    periods = int_field("periods", request.periods or PERIODS_DEFAULT, 1, PERIODS_MAX)
    return tuple(Cell(period, period) for period in range(periods + 1))


def _brackets(request: QueryRetentionRequest) -> tuple[Cell, ...]:
    if not request.brackets:
        return ()
    if request.periods:
        raise _invalid("periods", "must be left out beside brackets.")
    if len(request.brackets) > BRACKETS_MAX:
        raise field_error(Reason.FIELD_TOO_LONG, "brackets", f"brackets may have at most {BRACKETS_MAX}.")
    cells: list[Cell] = []
    for index, bracket in enumerate(request.brackets):
        field = f"brackets[{index}]"
        first = int_field(f"{field}.first", bracket.first, 0, PERIODS_MAX)
        last = int_field(f"{field}.last", bracket.last, 0, PERIODS_MAX)
        if last < first:
            raise _invalid(f"{field}.last", "must not lie before first.")
        if cells and first <= cells[-1].last:
            raise _invalid(f"{field}.first", "must lie after the last period of the bracket before.")
        cells.append(Cell(first, last))
    return tuple(cells)


def _units(zone: Zone, unit: _Unit, asked: Range, last_period: int, week_start: int) -> tuple[Buckets, int]:
    """The units of the cohorts and of their periods, and how many cohorts there are."""
    too_many = _invalid("range", f"is too long: a question has at most {COHORTS_MAX:,} cohorts. Take a longer unit.")
    # Not to count what is too much by far.
    if asked.end - asked.start > (COHORTS_MAX + 1) * unit.longest:
        raise too_many
    cohorts = len(Buckets.of(zone, unit.width, asked.start, asked.end, week_start).starts)
    if cohorts > COHORTS_MAX:
        raise too_many
    end = asked.end + (last_period + 2) * unit.longest
    if end > MOMENT_MAX:
        raise _invalid("range.end", "must be so early that the periods after it lie within the years 2 to 9997.")
    starts = Buckets.of(zone, unit.width, asked.start, end, week_start).starts
    return Buckets(starts[: cohorts + last_period + 1]), cohorts


def _semantics(
    zone: Zone,
    asked: Range,
    unit: int,
    cells: tuple[Cell, ...],
    request: QueryRetentionRequest,
    rules: Rules,
    start: Selector,
    returning: Selector,
    measure: Measure | None,
) -> Mapping[str, str]:
    """The rules in force, by the names of the request's fields."""
    semantics = {
        "range": "/".join(moment(at).isoformat().replace("+00:00", "Z") for at in (asked.start, asked.end)),
        "timezone": zone.name,
        "start": start.label,
        "return": returning.label,
        "unit": _ENUMS["unit"].Name(unit).removeprefix("RETENTION_UNIT_"),
    }
    for field in fields(Rules):
        prefix = "" if field.name == "week_start" else "RETENTION_"
        name = _ENUMS[field.name].Name(getattr(rules, field.name))
        semantics[field.name] = name.removeprefix(f"{prefix}{field.name.upper()}_")
    if request.brackets:
        semantics["brackets"] = " ".join(f"{cell.first}-{cell.last}" for cell in cells)
    else:
        semantics["periods"] = str(cells[-1].last)
    if measure:
        semantics["measure"] = _ENUMS["measure"].Name(measure.measure).removeprefix("TREND_MEASURE_")
    return semantics


def _invalid(field: str, rest: str) -> NimbusError:
    return field_error(Reason.FIELD_INVALID, field, f"{field} {rest}")
