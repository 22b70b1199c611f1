"""Buckets begin when the clock of their time zone says so, whatever its rules."""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.zones import buckets, clock

from nimbus_server.analyses.zone import Buckets, Zone
from nimbus_server.clock import DAY, MINUTE, micros
from nimbus_server.errors import NimbusError, Reason

ODD = [
    ("Europe/Berlin", "2024-03-29", 4),
    ("Europe/Berlin", "2024-10-25", 4),
    ("America/Sao_Paulo", "2018-11-02", 4),  # no midnight on the 4th
    ("America/Sao_Paulo", "2018-02-16", 4),  # from midnight back to 23:00
    ("Asia/Kathmandu", "2024-01-01", 2),
    ("Australia/Lord_Howe", "2024-04-05", 4),  # half an hour
    ("Australia/Lord_Howe", "2024-10-04", 4),
    ("Pacific/Apia", "2011-12-28", 5),  # no 30th
    ("Africa/Cairo", "2023-04-26", 4),  # no midnight on the 28th
    ("America/Havana", "2024-11-01", 4),  # two midnights on the 3rd
    ("America/St_Johns", "2010-11-05", 4),  # from 00:01 back to 23:01
]
ZONES = sorted({zone for zone, _, _ in ODD})
HOUR = 60 * MINUTE


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connected:
        yield connected


def day(text: str) -> int:
    return micros(datetime.fromisoformat(text).replace(tzinfo=UTC))


def ask(connection: duckdb.DuckDBPyConnection, sql: str, moments: range) -> list[int]:
    rows = connection.execute(
        f"SELECT {sql} FROM (SELECT unnest(range({moments.start}, {moments.stop}, {moments.step})) AS t) ORDER BY t"
    ).fetchall()
    return [value for (value,) in rows]


def check_buckets(
    connection: duckdb.DuckDBPyConnection, zone: str, width: str, moments: range, before: range, week_start: int
) -> None:
    """`before` are moments just before: the clock may have gone back in them."""
    found = Buckets.of(Zone(zone), width, moments.start, moments.stop, week_start)
    plain = list(buckets(zone, width, [*before, *moments], week_start))
    first_days = [first for _, first in plain[len(before) :]]
    numbers = {first: number for number, first in enumerate(dict.fromkeys(first_days))}
    expected = [numbers[first] for first in first_days]
    assert ask(connection, found.index("t"), moments) == expected
    assert [found.number(at) for at in moments] == expected
    assert len(found.starts) == len(numbers)
    starts = {numbers[new]: at for (_, old), (at, new) in pairwise(plain) if new != old and at > moments.start}
    assert all(found.starts[number] == at for number, at in starts.items())
    assert found.starts[0] <= moments.start


@pytest.mark.parametrize(("zone", "start", "days"), ODD)
@pytest.mark.parametrize(("width", "week_start"), [("1d", 0), ("1w", 0), ("1w", 2), ("1w", 3), ("1mo", 0)])
def test_days_and_weeks_begin_when_the_clock_says_so(
    connection: duckdb.DuckDBPyConnection, zone: str, start: str, days: int, width: str, week_start: int
) -> None:
    at = day(start) + 7 * HOUR + 15 * MINUTE
    step = MINUTE if width == "1d" or zone == "America/St_Johns" else 5 * MINUTE
    check_buckets(connection, zone, width, range(at, at + days * DAY, step), range(at - 2 * DAY, at, step), week_start)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo"])
@pytest.mark.parametrize("width", ["1d", "1w", "1mo", "1q", "1y"])
def test_long_ranges_have_the_buckets_of_the_calendar(
    connection: duckdb.DuckDBPyConnection, zone: str, width: str
) -> None:
    at = day("2010-12-30") + 5 * HOUR
    moments = range(at, at + 800 * DAY, HOUR)
    check_buckets(connection, zone, width, moments, range(at - 2 * DAY, at, HOUR), 0)


@pytest.mark.parametrize(("zone", "start", "days"), ODD)
def test_the_local_time_is_what_the_clock_shows(
    connection: duckdb.DuckDBPyConnection, zone: str, start: str, days: int
) -> None:
    moments = range(day(start), day(start) + days * DAY, MINUTE)
    local = Zone(zone).local("t", moments.start, moments.stop)
    expected = [micros(clock(zone, at).replace(tzinfo=UTC)) for at in moments]
    assert ask(connection, local, moments) == expected


@settings(max_examples=25, deadline=None)
@given(zone=st.sampled_from(ZONES), start=st.dates(date(2000, 1, 1), date(2030, 1, 1)), days=st.integers(1, 900))
def test_the_local_time_is_right_over_years(
    connection: duckdb.DuckDBPyConnection, zone: str, start: date, days: int
) -> None:
    moments = range(day(start.isoformat()), day((start + timedelta(days)).isoformat()), 7 * HOUR)
    local = Zone(zone).local("t", moments.start, moments.stop)
    expected = [micros(clock(zone, at).replace(tzinfo=UTC)) for at in moments]
    assert ask(connection, local, moments) == expected


@pytest.mark.parametrize(("width", "minutes"), [("1m", 1), ("5m", 5), ("15m", 15), ("1h", 60)])
def test_buckets_below_a_day_are_whole_multiples_in_utc(
    connection: duckdb.DuckDBPyConnection, width: str, minutes: int
) -> None:
    start, end = day("2024-03-31") + 7 * MINUTE, day("2024-03-31") + 5 * HOUR
    found = Buckets.of(Zone("Asia/Kathmandu"), width, start, end)
    assert found.starts == tuple(range(start - start % (minutes * MINUTE), end, minutes * MINUTE))
    moments = range(start, end, MINUTE)
    assert ask(connection, found.index("t"), moments) == [bisect_right(found.starts, at) - 1 for at in moments]


@pytest.mark.parametrize(
    ("zone", "start", "length"), [("Europe/Berlin", "2024-03-31", 23), ("Europe/Berlin", "2024-10-27", 25)]
)
def test_a_day_of_23_or_25_hours_is_one_day(zone: str, start: str, length: int) -> None:
    noon = day(start) + 12 * HOUR
    first, second = Buckets.of(Zone(zone), "1d", noon, noon + DAY).starts
    assert second - first == length * HOUR


def test_as_many_buckets_as_may_be_are_found_and_no_more(connection: duckdb.DuckDBPyConnection) -> None:
    start = day("2000-01-01")
    found = Buckets.of(Zone("Europe/Berlin"), "1d", start, start + 9_999 * DAY)
    assert len(found.starts) == 10_000
    moments = range(start, start + 9_999 * DAY, 11 * HOUR)
    assert ask(connection, found.index("t"), moments) == [found.number(at) for at in moments]
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "bucket"):
        Buckets.of(Zone("Europe/Berlin"), "1d", start, start + 10_001 * DAY)


@pytest.mark.parametrize(
    "name", ["", "Europe", "../etc/passwd", "europe/berlin", "Europe/Berlin\0", "right/UTC", "x" * 999]
)
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.FIELD_INVALID) as failed:
        Zone(name)
    assert failed.value.violations[0].field == "timezone"


@pytest.mark.parametrize("width", ["", "2d", "1M", "30m", "day"])
def test_what_is_no_width_of_a_bucket_is_refused(width: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "bucket"):
        Buckets.of(Zone("UTC"), width, 0, DAY)


def test_an_unknown_first_day_of_the_week_is_refused() -> None:
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "week_start"):
        Buckets.of(Zone("UTC"), "1w", 0, DAY, 9)
