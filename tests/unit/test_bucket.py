"""Buckets of time: every moment lies in exactly one."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_server.metrics.bucket import BUCKETS, Bucket

MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001


def test_the_documented_buckets_have_their_widths() -> None:
    minutes = {name: bucket.width / timedelta(minutes=1) for name, bucket in BUCKETS.items()}
    assert minutes == {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "1d": 1440}


@given(st.sampled_from(list(BUCKETS.values())), MOMENTS)
def test_a_moment_lies_in_the_bucket_of_its_floor(bucket: Bucket, at: datetime) -> None:
    floor = bucket.floor(at)
    assert floor <= at < floor + bucket.width
    assert (
        floor
        == datetime.fromtimestamp(0, UTC) + (floor - datetime.fromtimestamp(0, UTC)) // bucket.width * bucket.width
    )
    assert bucket.floor(floor) == floor


@given(st.sampled_from(list(BUCKETS.values())), MOMENTS)
def test_the_ceiling_is_the_next_start_or_the_moment_itself(bucket: Bucket, at: datetime) -> None:
    ceil = bucket.ceil(at)
    assert ceil - bucket.width < at <= ceil
    assert bucket.floor(ceil) == ceil


@pytest.mark.parametrize(
    ("name", "start"),
    [("1m", "13:59"), ("5m", "13:55"), ("15m", "13:45"), ("1h", "13:00"), ("1d", "00:00")],
)
def test_buckets_start_at_whole_times_of_the_day_in_utc(name: str, start: str) -> None:
    at = datetime(2024, 2, 29, 13, 59, 59, 999_999, tzinfo=UTC)
    assert BUCKETS[name].floor(at).isoformat() == f"2024-02-29T{start}:00+00:00"


@pytest.mark.parametrize("bucket", BUCKETS.values(), ids=str)
def test_the_ends_of_the_calendar_have_buckets_too(bucket: Bucket) -> None:
    """Clients say "ever" with them."""
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert bucket.floor(first) == bucket.ceil(first) == first
    assert bucket.floor(last) <= last <= bucket.ceil(last)
