"""What QueryTrend is asked, as a plan."""

from collections.abc import Mapping

from nimbus.v1.question_pb2 import Preset, WeekStart
from nimbus.v1.trend_pb2 import QueryTrendRequest, TrendFormula, TrendMeasure, TrendSeriesQuery
from nimbus_server.analyses.property import Property, property_field
from nimbus_server.analyses.question import Asked
from nimbus_server.analyses.selector import read_selector
from nimbus_server.analyses.time_range import Range, read_range
from nimbus_server.analyses.trend.comparison import read_comparison
from nimbus_server.analyses.trend.formula import LENGTH_MAX, FormulaError, parse_formula
from nimbus_server.analyses.trend.plan import NUMERIC, LabelledFormula, Period, Plan, Series
from nimbus_server.analyses.zone import NO_BUCKETS, Buckets, Zone
from nimbus_server.clock import moment
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.rpc.fields import int_field, text_field

SERIES_MAX = 10
FORMULAS_MAX = 10
BREAKDOWNS_MAX = 3
BREAKDOWN_LIMIT_DEFAULT, BREAKDOWN_LIMIT_MAX = 25, 100
LABEL_LENGTH_MAX = 200
# About 2 MB of a response; clients of gRPC take 4 MB unless they are told otherwise.
POINTS_MAX = 100_000

# PostHog's weeks begin on Sunday unless its project says otherwise. The others document no such rule for their charts.
_WEEK_STARTS = {Preset.PRESET_POSTHOG: WeekStart.WEEK_START_SUNDAY}


def read_plan(request: QueryTrendRequest, asked: Asked) -> Plan:
    """The plan of a request.

    Raises NimbusError with FIELD_REQUIRED, FIELD_TOO_LONG or FIELD_INVALID and the path of what is wrong, and with
    QUESTION_TOO_LARGE where the answer would be too large.
    """
    zone = Zone(request.timezone or asked.timezone)
    week_start = _week_start(request)
    _check_count("series", len(request.series), SERIES_MAX)
    if not request.series:
        raise field_error(Reason.FIELD_REQUIRED, "series", "series is required: at least one.")
    series = tuple(_series(f"series[{index}]", given) for index, given in enumerate(request.series))
    _check_count("formulas", len(request.formulas), FORMULAS_MAX)
    formulas = tuple(_formula(f"formulas[{index}]", given, len(series)) for index, given in enumerate(request.formulas))
    _check_count("breakdowns", len(request.breakdowns), BREAKDOWNS_MAX)
    breakdowns = tuple(property_field(f"breakdowns[{index}]", path) for index, path in enumerate(request.breakdowns))
    limit = int_field("breakdown_limit", request.breakdown_limit or BREAKDOWN_LIMIT_DEFAULT, 1, BREAKDOWN_LIMIT_MAX)
    asked_range = read_range(request.range, zone, asked.now, week_start)

    def period(part: Range) -> Period:
        has_buckets = request.bucket not in NO_BUCKETS
        buckets = Buckets.of(zone, request.bucket, part.start, part.end, week_start) if has_buckets else None
        return Period(part, buckets)

    compared = None
    if request.HasField("compare_to"):
        compared = period(read_comparison(request.compare_to, asked_range, zone))
    plan = Plan(
        series=series,
        formulas=formulas,
        period=period(asked_range),
        compared=compared,
        breakdowns=breakdowns,
        breakdown_limit=limit,
        semantics=_semantics(request, zone, week_start, asked_range, compared, limit),
    )
    _check_size(plan)
    return plan


def _week_start(request: QueryTrendRequest) -> "WeekStart.ValueType":
    for field, values in (("preset", Preset.values()), ("week_start", WeekStart.values())):
        if getattr(request, field) not in values:
            raise field_error(Reason.FIELD_INVALID, field, f"{field} must be one of its named values.")
    return request.week_start or _WEEK_STARTS.get(request.preset, WeekStart.WEEK_START_MONDAY)


def _series(field: str, given: TrendSeriesQuery) -> Series:
    selector = read_selector(f"{field}.selector", given.selector)
    if given.measure not in TrendMeasure.values():
        raise field_error(Reason.FIELD_INVALID, f"{field}.measure", f"{field}.measure must be one of its named values.")
    measure = given.measure or TrendMeasure.TREND_MEASURE_EVENTS
    measured: Property | None = None
    if measure in NUMERIC or measure == TrendMeasure.TREND_MEASURE_DISTINCT:
        measured = property_field(f"{field}.property", given.property)
    elif given.property:
        raise field_error(
            Reason.FIELD_INVALID,
            f"{field}.property",
            f"{field}.property is for measures of a property alone, and {_short(measure)} is none.",
        )
    return Series(selector, measure, measured)


def _formula(field: str, given: TrendFormula, series_count: int) -> LabelledFormula:
    expression = text_field(f"{field}.expression", given.expression, LENGTH_MAX)
    label = text_field(f"{field}.label", given.label or expression, LABEL_LENGTH_MAX)
    try:
        return LabelledFormula(label, parse_formula(expression, series_count))
    except FormulaError as error:
        raise field_error(Reason.FIELD_INVALID, f"{field}.expression", f"{field}.expression {error}") from None


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise field_error(Reason.FIELD_TOO_LONG, field, f"{field} may have at most {most}.")


def _check_size(plan: Plan) -> None:
    """Refuse a question whose answer can be larger than a response may be."""
    lines = (len(plan.series) + len(plan.formulas)) * (plan.breakdown_limit + 1 if plan.breakdowns else 1)
    periods = [period for period in (plan.period, plan.compared) if period]
    points = lines * sum(len(period.buckets.starts) for period in periods if period.buckets)
    if points > POINTS_MAX:
        raise NimbusError(
            Reason.QUESTION_TOO_LARGE,
            f"The answer can have {points:,} points, and may have {POINTS_MAX:,}. Ask for fewer series, a lower "
            "breakdown_limit, a wider bucket or a shorter range.",
        )


def _semantics(
    request: QueryTrendRequest,
    zone: Zone,
    week_start: "WeekStart.ValueType",
    asked: Range,
    compared: Period | None,
    limit: int,
) -> Mapping[str, str]:
    """The rules in force, by the names of the request's fields."""
    semantics = {
        "range": _interval(asked),
        "timezone": zone.name,
        "week_start": WeekStart.Name(week_start).removeprefix("WEEK_START_"),
        "bucket": request.bucket or "none",
    }
    for index, given in enumerate(request.series):
        semantics[f"series[{index}].measure"] = _short(given.measure or TrendMeasure.TREND_MEASURE_EVENTS)
    if request.breakdowns:
        semantics["breakdown_limit"] = str(limit)
    if compared:
        semantics["compare_to"] = _interval(compared.range)
    return semantics


def _interval(asked: Range) -> str:
    """An interval as ISO 8601 writes it."""
    return "/".join(moment(at).isoformat().replace("+00:00", "Z") for at in (asked.start, asked.end))


def _short(measure: "TrendMeasure.ValueType") -> str:
    return TrendMeasure.Name(measure).removeprefix("TREND_MEASURE_")
