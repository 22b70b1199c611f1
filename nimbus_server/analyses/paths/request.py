"""What QueryPaths is asked, as a plan."""

from typing import Any

from nimbus.v1.paths_pb2 import PathDirection, QueryPathsRequest
from nimbus.v1.question_pb2 import Preset
from nimbus_server.analyses.paths.plan import Plan
from nimbus_server.analyses.property import property_field
from nimbus_server.analyses.question import Asked
from nimbus_server.analyses.selector import read_selector
from nimbus_server.analyses.time_range import Range, read_duration, read_range
from nimbus_server.analyses.zone import Zone
from nimbus_server.clock import DAY, moment
from nimbus_server.errors import Reason, field_error
from nimbus_server.rpc.fields import int_field

STEPS_DEFAULT, STEPS_MAX = 3, 10
LIMIT_DEFAULT, LIMIT_MAX = 50, 500
WITHIN_DAYS_MAX = 366
NODE_DEFAULT = "name"
# How long paths are followed where the request does not say; the others' end with the session.
WITHIN_OF_PRESET = {Preset.PRESET_MIXPANEL: "30d"}


def read_plan(request: QueryPathsRequest, asked: Asked) -> Plan:
    """The plan of a request.

    Raises NimbusError with FIELD_REQUIRED, FIELD_TOO_LONG or FIELD_INVALID, and the path of what is wrong.
    """
    _check_enum("preset", request.preset, Preset)
    _check_enum("direction", request.direction, PathDirection)
    if not request.HasField("anchor"):
        raise field_error(Reason.FIELD_REQUIRED, "anchor", "anchor is required: the events at which paths begin.")
    zone = Zone(request.timezone or asked.timezone)
    asked_range = read_range(request.range, zone, asked.now)
    within = request.within or WITHIN_OF_PRESET.get(request.preset, "")
    collapse = request.collapse_repeats if request.HasField("collapse_repeats") else True
    backwards = request.direction == PathDirection.PATH_DIRECTION_BEFORE
    node = property_field("node", request.node or NODE_DEFAULT)
    steps = int_field("steps", request.steps or STEPS_DEFAULT, 1, STEPS_MAX)
    limit = int_field("limit", request.limit or LIMIT_DEFAULT, 1, LIMIT_MAX)
    return Plan(
        range=asked_range,
        anchor=read_selector("anchor", request.anchor),
        nodes=read_selector("nodes", request.nodes),
        node=node,
        backwards=backwards,
        steps=steps,
        within=_within(within) if within else None,
        collapse_repeats=collapse,
        limit=limit,
        semantics={
            "range": _interval(asked_range),
            "timezone": zone.name,
            "direction": "BEFORE" if backwards else "AFTER",
            "steps": str(steps),
            "within": within or "session",
            "collapse_repeats": str(collapse).lower(),
            "node": node.path,
            "limit": str(limit),
        },
    )


def _within(text: str) -> int:
    within = read_duration("within", text)
    if within > WITHIN_DAYS_MAX * DAY:
        raise field_error(Reason.FIELD_INVALID, "within", f"within must be at most {WITHIN_DAYS_MAX} days.")
    return within


def _check_enum(field: str, value: int, enum: Any) -> None:
    if value not in enum.values():
        raise field_error(Reason.FIELD_INVALID, field, f"{field} must be one of its named values.")


def _interval(asked: Range) -> str:
    """An interval as ISO 8601 writes it."""
    return "/".join(moment(at).isoformat().replace("+00:00", "Z") for at in (asked.start, asked.end))
