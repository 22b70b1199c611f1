"""Ranges of time and lengths are read as a request has them."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from nimbus.v1.question_pb2 import TimeRange
from nimbus_server.analyses.time_range import Range, earlier, read_duration, read_range, read_span
from nimbus_server.analyses.zone import Zone
from nimbus_server.clock import DAY, MINUTE, SECOND, micros, moment
from nimbus_server.errors import NimbusError, Reason

BERLIN = Zone("Europe/Berlin")
NOW = datetime(2024, 4, 5, 12, 34, 56, tzinfo=UTC)  # a Friday


def stamp(text: str) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(datetime.fromisoformat(text))
    return message


def local(at: int) -> str:
    return (moment(at) + timedelta(microseconds=BERLIN.offset(at))).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("last", "start", "end"),
    [
        ("1m", "2024-04-05 14:34", "2024-04-05 14:35"),
        ("24h", "2024-04-04 15:00", "2024-04-05 15:00"),
        ("1d", "2024-04-05 00:00", "2024-04-06 00:00"),
        ("7d", "2024-03-30 00:00", "2024-04-06 00:00"),  # over the 23 hours of the 31st
        ("2w", "2024-03-25 00:00", "2024-04-08 00:00"),
        ("1mo", "2024-04-01 00:00", "2024-05-01 00:00"),
        ("14mo", "2023-03-01 00:00", "2024-05-01 00:00"),
        ("2q", "2024-01-01 00:00", "2024-07-01 00:00"),
        ("2y", "2023-01-01 00:00", "2025-01-01 00:00"),
    ],
)
def test_last_is_so_many_whole_units_of_the_zone(last: str, start: str, end: str) -> None:
    found = read_range(TimeRange(last=last), BERLIN, NOW)
    assert (local(found.start), local(found.end)) == (start, end)


def test_weeks_of_last_begin_on_the_day_asked_for() -> None:
    found = read_range(TimeRange(last="1w"), BERLIN, NOW, week_start=2)
    assert (local(found.start), local(found.end)) == ("2024-03-31 00:00", "2024-04-07 00:00")


def test_start_and_end_are_taken_as_they_are_and_end_is_now() -> None:
    start = stamp("2024-01-01T00:00:00.000001+00:00")
    assert read_range(TimeRange(start=start, end=stamp("2024-01-02T00:00:00+00:00")), BERLIN, NOW) == Range(
        micros(datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)), micros(datetime(2024, 1, 2, tzinfo=UTC))
    )
    assert read_range(TimeRange(start=start), BERLIN, NOW).end == micros(NOW)


@pytest.mark.parametrize(
    ("given", "reason", "field"),
    [
        (TimeRange(), Reason.FIELD_REQUIRED, "range"),
        (TimeRange(end=stamp("2024-01-01T00:00:00+00:00")), Reason.FIELD_REQUIRED, "range"),
        (TimeRange(last="30d", end=stamp("2024-01-01T00:00:00+00:00")), Reason.FIELD_INVALID, "range.last"),
        (TimeRange(start=stamp("2025-01-01T00:00:00+00:00")), Reason.FIELD_INVALID, "range.end"),
        (TimeRange(start=stamp("0001-01-01T00:00:00+00:00")), Reason.FIELD_INVALID, "range.start"),
        (TimeRange(start=Timestamp(seconds=-(10**12))), Reason.FIELD_INVALID, "range.start"),
        *(
            (TimeRange(last=last), Reason.FIELD_INVALID, "range.last")
            for last in [
                "d",
                "0d",
                "-1d",
                "1.5d",
                "30 d",
                "30",
                "30s",
                "30M",
                "30days",
                "10001d",
                "3000y",
                "9999999999d",
            ]
        ),
    ],
)
def test_a_range_that_is_wrong_is_named(given: TimeRange, reason: Reason, field: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is reason) as failed:
        read_range(given, BERLIN, NOW)
    assert failed.value.violations[0].field == field


@pytest.mark.parametrize(
    ("at", "count", "unit", "expected"),
    [
        ("2024-03-31 01:30", 1, "d", "2024-03-30 01:30"),
        ("2024-04-07 02:30", 1, "w", "2024-03-31 03:00"),  # that day the clock leapt from 2:00 to 3:00
        ("2024-03-31 12:00", 1, "mo", "2024-02-29 12:00"),
        ("2024-03-31 12:00", 1, "q", "2023-12-31 12:00"),
        ("2024-02-29 12:00", 1, "y", "2023-02-28 12:00"),
        ("2024-03-31 12:00", 24, "h", "2024-03-30 11:00"),
    ],
)
def test_earlier_is_the_same_time_of_the_clock(at: str, count: int, unit: str, expected: str) -> None:
    assert local(earlier(BERLIN.moment_of(datetime.fromisoformat(at)), count, unit, BERLIN)) == expected


def test_lengths_are_fixed() -> None:
    assert read_duration("within", "90s") == 90 * SECOND
    assert read_duration("within", "15m") == 15 * MINUTE
    assert read_duration("within", "14d") == 14 * DAY
    assert read_duration("within", "2w") == 14 * DAY
    assert read_span("shift", "3mo") == (3, "mo")


@pytest.mark.parametrize("text", ["", "14", "14mo", "0d", "1y", "14D", "d14", "1" * 30 + "d"])
def test_a_length_that_is_wrong_is_named(text: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "within"):
        read_duration("within", text)
