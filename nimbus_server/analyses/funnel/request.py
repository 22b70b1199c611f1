"""What QueryFunnel is asked, as a plan."""

from collections.abc import Mapping, Sequence
from typing import Any

from nimbus.v1.funnel_pb2 import (
    FunnelAttribution,
    FunnelBreakdown,
    FunnelCompletes,
    FunnelCounting,
    FunnelEntry,
    FunnelExclusion,
    FunnelOnExclusion,
    FunnelOrder,
    FunnelStepQuery,
    QueryFunnelRequest,
)
from nimbus.v1.question_pb2 import EventSelector, Preset, WeekStart
from nimbus_server.analyses.funnel.plan import AT_STEP, ORDERED, Breakdown, Exclusion, Plan
from nimbus_server.analyses.funnel.presets import PRESETS
from nimbus_server.analyses.property import property_field
from nimbus_server.analyses.question import Asked
from nimbus_server.analyses.selector import Selector, read_selector
from nimbus_server.analyses.time_range import read_duration, read_range
from nimbus_server.analyses.zone import NO_BUCKETS, Buckets, Zone
from nimbus_server.clock import DAY, SECOND, moment
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.rpc.fields import int_field

STEPS_MIN, STEPS_MAX = 2, 20
EXCLUSIONS_MAX = 10
HELD_MAX = 5
TIE_SECONDS_MAX = 60
WITHIN_MAX = 366 * DAY
# Steps of all buckets together: with the longest labels about 3 MB of a response.
ANSWERED_MAX = 10_000


def read_plan(request: QueryFunnelRequest, asked: Asked) -> Plan:
    """The plan of a request.

    Raises NimbusError with FIELD_REQUIRED, FIELD_TOO_LONG or FIELD_INVALID and the path of what is wrong, and with
    QUESTION_TOO_LARGE where the answer would be too large.
    """
    preset = _choice("preset", request.preset, Preset, Preset.PRESET_UNSPECIFIED)
    defaults = PRESETS[preset]
    zone = Zone(request.timezone or asked.timezone)
    week_start = _choice("week_start", request.week_start, WeekStart, defaults.week_start)
    completes = _choice("completes", request.completes, FunnelCompletes, defaults.completes)
    on_exclusion = _choice("on_exclusion", request.on_exclusion, FunnelOnExclusion, defaults.on_exclusion)
    entry = _choice("entry", request.entry, FunnelEntry, defaults.entry)
    order = _choice("order", request.order, FunnelOrder, ORDERED)
    counting = _choice("counting", request.counting, FunnelCounting, FunnelCounting.FUNNEL_COUNTING_PEOPLE)
    optional = _optional(request.steps, order)
    steps = tuple(_step(f"steps[{index}]", step) for index, step in enumerate(request.steps))
    asked_range = read_range(request.range, zone, asked.now, week_start)
    within = read_duration("within", request.within or defaults.within)
    if within > WITHIN_MAX:
        raise _invalid("within", "must be at most 366d.")
    in_range = completes == FunnelCompletes.FUNNEL_COMPLETES_IN_RANGE
    tie_seconds = _tie_seconds(request, order, defaults.tie_seconds)
    breakdown = (
        _breakdown(request.breakdown, len(steps), defaults.attribution) if request.HasField("breakdown") else None
    )
    _check_count("hold_constant", len(request.hold_constant), HELD_MAX)
    return Plan(
        steps=steps,
        optional=optional,
        range=asked_range,
        reads_until=asked_range.end if in_range else asked_range.end + within,
        within=within,
        entry=entry,
        order=order,
        tie=tie_seconds * SECOND,
        exclusions=_exclusions(request.exclusions, order, len(steps), optional),
        is_dropped=on_exclusion == FunnelOnExclusion.FUNNEL_ON_EXCLUSION_DROP,
        held=tuple(property_field(f"hold_constant[{index}]", path) for index, path in enumerate(request.hold_constant)),
        counting=counting,
        breakdown=breakdown,
        buckets=_buckets(request, zone, asked_range.start, asked_range.end, week_start),
        semantics={
            "range": "/".join(
                moment(at).isoformat().replace("+00:00", "Z") for at in (asked_range.start, asked_range.end)
            ),
            "timezone": zone.name,
            "week_start": _short(WeekStart, week_start),
            "within": request.within or defaults.within,
            "completes": _short(FunnelCompletes, completes),
            "entry": _short(FunnelEntry, entry),
            "order": _short(FunnelOrder, order),
            "tie_seconds": str(tie_seconds),
            "on_exclusion": _short(FunnelOnExclusion, on_exclusion),
            "counting": _short(FunnelCounting, counting),
            "bucket": request.bucket or "none",
            **_attributed(breakdown),
        },
    )


def _choice(field: str, value: int, enum: Any, default: int) -> int:
    if value not in enum.values():
        raise _invalid(field, "must be one of its named values.")
    return value or default


def _short(enum: Any, value: int) -> str:
    """The name of a value without its prefix, which the name of the enum's first value ends."""
    prefix: str = enum.Name(0).removesuffix("UNSPECIFIED")
    name: str = enum.Name(value)
    return name.removeprefix(prefix)


def _step(field: str, step: FunnelStepQuery) -> Selector:
    own = EventSelector(names=step.names, filter=step.filter if step.HasField("filter") else None, label=step.label)
    if own == EventSelector():
        return read_selector(f"{field}.selector", step.selector)
    if step.HasField("selector"):
        raise _invalid(f"{field}.selector", "must be left out beside names, filter or label of the step.")
    return read_selector(field, own)


def _optional(steps: Sequence[FunnelStepQuery], order: int) -> int:
    """The number of the optional step, 0 where there is none."""
    _check_count("steps", len(steps), STEPS_MAX)
    if len(steps) < STEPS_MIN:
        raise field_error(Reason.FIELD_REQUIRED, "steps", f"steps is required: at least {STEPS_MIN}.")
    numbers = [number for number, step in enumerate(steps, start=1) if step.optional]
    for place, number in enumerate(numbers):
        field = f"steps[{number - 1}].optional"
        if place or number in {1, len(steps)}:
            raise _invalid(field, "may be set at one step, and not at the first or the last.")
        if order != ORDERED:
            raise _invalid(field, "may be set with order ORDERED alone.")
    return numbers[0] if numbers else 0


def _tie_seconds(request: QueryFunnelRequest, order: int, default: int) -> int:
    if order != ORDERED:
        if request.tie_seconds:
            raise _invalid("tie_seconds", "may be set with order ORDERED alone.")
        return 0
    given = request.tie_seconds if request.HasField("tie_seconds") else default
    return int_field("tie_seconds", given, 0, TIE_SECONDS_MAX)


def _exclusions(given: Sequence[FunnelExclusion], order: int, count: int, optional: int) -> tuple[Exclusion, ...]:
    _check_count("exclusions", len(given), EXCLUSIONS_MAX)
    if given and order != ORDERED:
        raise _invalid("exclusions", "may be given with order ORDERED alone.")
    return tuple(_exclusion(f"exclusions[{index}]", one, count, optional) for index, one in enumerate(given))


def _exclusion(field: str, given: FunnelExclusion, count: int, optional: int) -> Exclusion:
    if not given.HasField("selector"):
        raise field_error(Reason.FIELD_REQUIRED, f"{field}.selector", f"{field}.selector is required.")
    first = int_field(f"{field}.from_step", given.from_step or 1, 1, count - 1)
    last = int_field(f"{field}.to_step", given.to_step or count, first + 1, count)
    for name, number in (("from_step", first), ("to_step", last)):
        if number == optional:
            raise _invalid(f"{field}.{name}", "must not be the optional step.")
    return Exclusion(read_selector(f"{field}.selector", given.selector), first, last)


def _breakdown(given: FunnelBreakdown, count: int, default: int) -> Breakdown:
    attribution = _choice("breakdown.attribution", given.attribution, FunnelAttribution, default)
    step = 0
    if attribution == AT_STEP:
        step = int_field("breakdown.step", given.step, 1, count)
    elif given.step:
        raise _invalid("breakdown.step", "is for the attribution STEP alone.")
    return Breakdown(property_field("breakdown.property", given.property), attribution, step)


def _attributed(breakdown: Breakdown | None) -> Mapping[str, str]:
    if breakdown is None:
        return {}
    return {"breakdown.attribution": _short(FunnelAttribution, breakdown.attribution)}


def _buckets(request: QueryFunnelRequest, zone: Zone, start: int, end: int, week_start: int) -> Buckets | None:
    if request.bucket in NO_BUCKETS:
        return None
    buckets = Buckets.of(zone, request.bucket, start, end, week_start)
    answered = len(buckets.starts) * len(request.steps)
    if answered > ANSWERED_MAX:
        raise NimbusError(
            Reason.QUESTION_TOO_LARGE,
            f"The answer would have {answered:,} steps in all buckets, and may have {ANSWERED_MAX:,}. Ask for a wider "
            "bucket or a shorter range.",
        )
    return buckets


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise field_error(Reason.FIELD_TOO_LONG, field, f"{field} may have at most {most}.")


def _invalid(field: str, rest: str) -> NimbusError:
    return field_error(Reason.FIELD_INVALID, field, f"{field} {rest}")
