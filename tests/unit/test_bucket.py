"""Buckets of time: every moment lies in exactly one."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.buckets import ZONES, beginning, bucket_of

from nimbus_server.metrics.bucket import CALENDAR, FIXED, Bucket, CalendarBucket, FixedBucket

MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001

# Since the year 2000, in which events may begin, and some of the moments at which clocks were set.
RECENT = st.datetimes(datetime(2000, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
CHANGES = [
    ("America/Havana", datetime(2025, 11, 2, 5, tzinfo=UTC)),
    ("America/St_Johns", datetime(2009, 11, 1, 2, 31, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2024, 3, 30, 22, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2025, 3, 30, 1, tzinfo=UTC)),
]
NEAR_CHANGES = st.builds(
    lambda change, seconds: (change[0], change[1] + timedelta(seconds=seconds)),
    st.sampled_from(CHANGES),
    st.integers(-100_000, 100_000),
)
ZONED = st.tuples(st.sampled_from(ZONES), RECENT) | NEAR_CHANGES


def calendar_bucket(name: str, zone: str) -> CalendarBucket:
    return CalendarBucket(name, ZoneInfo(zone))


def test_the_documented_buckets_have_their_widths() -> None:
    minutes = {name: bucket.width / timedelta(minutes=1) for name, bucket in FIXED.items()}
    assert minutes == {"1m": 1, "5m": 5, "15m": 15, "1h": 60}


@given(st.sampled_from(list(FIXED.values())), MOMENTS)
def test_a_moment_lies_in_the_bucket_of_its_floor(bucket: FixedBucket, at: datetime) -> None:
    floor = bucket.floor(at)
    assert floor <= at < floor + bucket.width
    assert (
        floor
        == datetime.fromtimestamp(0, UTC) + (floor - datetime.fromtimestamp(0, UTC)) // bucket.width * bucket.width
    )
    assert bucket.floor(floor) == floor


@given(st.sampled_from(list(FIXED.values())), MOMENTS)
def test_the_ceiling_is_the_next_start_or_the_moment_itself(bucket: FixedBucket, at: datetime) -> None:
    ceil = bucket.ceil(at)
    assert ceil - bucket.width < at <= ceil
    assert bucket.floor(ceil) == ceil


@pytest.mark.parametrize(
    ("name", "start"),
    [("1m", "13:59"), ("5m", "13:55"), ("15m", "13:45"), ("1h", "13:00")],
)
def test_buckets_start_at_whole_times_of_the_day_in_utc(name: str, start: str) -> None:
    at = datetime(2024, 2, 29, 13, 59, 59, 999_999, tzinfo=UTC)
    assert FIXED[name].floor(at).isoformat() == f"2024-02-29T{start}:00+00:00"


@pytest.mark.parametrize("bucket", [*FIXED.values(), *map(calendar_bucket, CALENDAR, ZONES)], ids=str)
def test_the_ends_of_the_calendar_have_buckets_too(bucket: Bucket) -> None:
    """Clients say "ever" with them."""
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert bucket.floor(first) == first <= bucket.ceil(first)
    assert [*bucket.backwards(first)] in ([first], [])
    assert bucket.floor(last) <= last <= bucket.ceil(last)


@given(st.sampled_from(CALENDAR), ZONED)
@settings(max_examples=300, deadline=None)
def test_days_weeks_and_months_are_those_of_the_local_clock(name: str, zoned: tuple[str, datetime]) -> None:
    zone, at = zoned
    bucket, start = calendar_bucket(name, zone), bucket_of(name, zone, at)
    assert bucket.floor(at) == start
    before = bucket_of(name, zone, start - timedelta(microseconds=1))
    assert [*islice(bucket.backwards(at), 2)] == [start, before]
    assert bucket.ceil(start) == start
    following = bucket.ceil(start + timedelta(microseconds=1))
    assert following > at
    assert bucket_of(name, zone, following - timedelta(microseconds=1)) == start


@pytest.mark.parametrize(
    ("zone", "day", "start", "hours"),
    [
        ("Europe/Berlin", "2025-03-30", "2025-03-29T23:00", 23),
        ("Europe/Berlin", "2025-10-26", "2025-10-25T22:00", 25),
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00", 23),  # begins at 01:00
        ("America/Havana", "2025-11-02", "2025-11-02T04:00", 25),  # 00:00 comes twice
        ("America/St_Johns", "2009-11-01", "2009-11-01T02:30", 25),  # at 00:01 the day before comes back
        ("Pacific/Apia", "2011-12-29", "2011-12-29T10:00", 24),
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00", 24),  # there was no 30th
    ],
)
def test_a_day_is_as_long_as_its_zone_says(zone: str, day: str, start: str, hours: int) -> None:
    at = datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert beginning(zone, datetime.fromisoformat(day).date()) == at
    bucket = calendar_bucket("1d", zone)
    for moment in (at, at + timedelta(hours=hours, microseconds=-1)):
        assert bucket.floor(moment) == at
        assert bucket.ceil(moment + timedelta(microseconds=1)) == at + timedelta(hours=hours)
