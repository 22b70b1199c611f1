"""The time that a question is about, and lengths of time, as requests have them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from nimbus.v1.question_pb2 import TimeRange
from nimbus_server.analyses.zone import MONTHS, Zone, bucket_around
from nimbus_server.clock import DAY, MINUTE, SECOND, micros, moment
from nimbus_server.errors import Reason, field_error
from nimbus_server.rpc.fields import time_field

UNITS_MAX = 10_000
# Room for any time zone within the years that Python knows.
MOMENT_MIN, MOMENT_MAX = micros(datetime(2, 1, 1, tzinfo=UTC)), micros(datetime(9998, 1, 1, tzinfo=UTC))
RANGE = "range"

_LENGTHS = {"s": SECOND, "m": MINUTE, "h": 60 * MINUTE, "d": DAY, "w": 7 * DAY}
_SPAN = re.compile(r"([1-9][0-9]{0,8})([a-z]{1,2})")
_SPAN_UNITS = ("m", "h", "d", "w", "mo", "q", "y")


@dataclass(frozen=True, slots=True)
class Range:
    """From `start` until before `end`, in microseconds since 1970 UTC."""

    start: int
    end: int


def read_range(request_range: TimeRange, zone: Zone, now: datetime, week_start: int = 0) -> Range:
    """The range of a question.

    With `last` it ends with the unit that is running, so that all its units are whole. Minutes and hours are whole ones
    of UTC, as buckets are. Raises NimbusError with FIELD_REQUIRED or FIELD_INVALID.
    """
    at = micros(now)
    if request_range.last:
        if request_range.HasField("start") or request_range.HasField("end"):
            raise field_error(Reason.FIELD_INVALID, "range.last", "range.last must not stand beside start or end.")
        return _last(*read_span("range.last", request_range.last), zone, at, week_start)
    if not request_range.HasField("start"):
        raise field_error(Reason.FIELD_REQUIRED, RANGE, "range is required: its start, or last.")
    start = _moment("range.start", request_range.start)
    end = _moment("range.end", request_range.end) if request_range.HasField("end") else at
    if start >= end:
        raise field_error(Reason.FIELD_INVALID, "range.end", "range.end must be after range.start.")
    return Range(start, end)


def read_span(field: str, text: str) -> tuple[int, str]:
    """A number and a unit of the calendar (`m h d w mo q y`), such as `30d`. Raises NimbusError with FIELD_INVALID."""
    count, unit = _split(field, text, _SPAN_UNITS)
    if count > UNITS_MAX:
        raise field_error(Reason.FIELD_INVALID, field, f"{field} must be at most {UNITS_MAX} units.")
    return count, unit


def read_duration(field: str, text: str, units: str = "s m h d w") -> int:
    """A number and a unit of fixed length, such as `14d`, in microseconds. Raises NimbusError with FIELD_INVALID."""
    count, unit = _split(field, text, units.split())
    return count * _LENGTHS[unit]


def earlier(at: int, count: int, unit: str, zone: Zone) -> int:
    """The moment at which the clock showed the same time so many units of the calendar before.

    A day that a month does not have is its last one. Raises OverflowError before the year 2.
    """
    if unit in {"m", "h"}:
        return _not_too_early(at - count * _LENGTHS[unit])
    local = moment(at + zone.offset(at)).replace(tzinfo=None)
    if f"1{unit}" in MONTHS:
        months = local.year * 12 + local.month - 1 - count * MONTHS[f"1{unit}"]
        if months < 24:
            raise OverflowError("before the year 2")
        first = date(months // 12, months % 12 + 1, 1)
        last = (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        local = local.replace(year=first.year, month=first.month, day=min(local.day, last.day))
    else:
        local -= timedelta(microseconds=count * _LENGTHS[unit])
    return _not_too_early(zone.moment_of(local))


def _last(count: int, unit: str, zone: Zone, at: int, week_start: int) -> Range:
    running, end = bucket_around(zone, f"1{unit}", at, week_start)
    try:
        start, _ = bucket_around(zone, f"1{unit}", earlier(running, count - 1, unit, zone), week_start)
    except OverflowError:
        raise field_error(
            Reason.FIELD_INVALID, "range.last", "range.last must not reach back before the year 2."
        ) from None
    return Range(start, end)


def _split(field: str, text: str, units: Sequence[str]) -> tuple[int, str]:
    found = _SPAN.fullmatch(text)
    if found is None or found[2] not in units:
        example = f"30{units[-1] if 'd' not in units else 'd'}"
        raise field_error(
            Reason.FIELD_INVALID, field, f"{field} must be a number and a unit ({', '.join(units)}), such as {example}."
        )
    return int(found[1]), found[2]


def _moment(field: str, value: Timestamp) -> int:
    at = micros(time_field(field, value))
    if not MOMENT_MIN <= at <= MOMENT_MAX:
        raise field_error(Reason.FIELD_INVALID, field, f"{field} must lie within the years 2 to 9997.")
    return at


def _not_too_early(at: int) -> int:
    if at < MOMENT_MIN:
        raise OverflowError("before the year 2")
    return at
