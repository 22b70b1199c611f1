"""The range that a trend is compared with, by the clock of the question's time zone."""

from datetime import datetime

from nimbus.v1.trend_pb2 import TrendComparison
from nimbus_server.analyses.time_range import MOMENT_MIN, Range, earlier, read_span
from nimbus_server.analyses.zone import Zone
from nimbus_server.clock import moment
from nimbus_server.errors import NimbusError, Reason, field_error


def read_comparison(comparison: TrendComparison, asked: Range, zone: Zone) -> Range:
    """The range that `compare_to` means. Raises NimbusError with FIELD_REQUIRED or FIELD_INVALID."""
    kind = comparison.WhichOneof("kind")
    if kind is None:
        raise field_error(
            Reason.FIELD_REQUIRED, "compare_to", "compare_to is empty: it has `previous`, or `shift` such as `1y`."
        )
    field = f"compare_to.{kind}"
    try:
        compared = _previous(asked, zone) if kind == "previous" else _shifted(field, comparison.shift, asked, zone)
    except OverflowError:
        raise _invalid(field, "must not lead to before the year 2.") from None
    if kind == "previous" and not comparison.previous:
        raise _invalid(field, "must be true, or be left out.")
    if compared.start >= compared.end:
        raise _invalid(field, "leaves nothing of the range: the month that it leads to has none of these days.")
    return compared


def _previous(asked: Range, zone: Zone) -> Range:
    start = _clock(asked.start, zone)
    before = start - (_clock(asked.end, zone) - start)
    if before < _clock(MOMENT_MIN, zone):
        raise OverflowError("before the year 2")
    return Range(zone.moment_of(before), asked.start)


def _shifted(field: str, text: str, asked: Range, zone: Zone) -> Range:
    count, unit = read_span(field, text)
    return Range(earlier(asked.start, count, unit, zone), earlier(asked.end, count, unit, zone))


def _clock(at: int, zone: Zone) -> datetime:
    """What the clock shows at a moment."""
    return moment(at + zone.offset(at)).replace(tzinfo=None)


def _invalid(field: str, rest: str) -> NimbusError:
    return field_error(Reason.FIELD_INVALID, field, f"{field} {rest}")
