"""Buckets of time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A width of time; buckets start at its whole multiples since 1970 in UTC."""

    name: str
    width: timedelta

    def floor(self, at: datetime) -> datetime:
        """Start of the bucket that holds `at`."""
        return at - (at - EPOCH) % self.width

    def ceil(self, at: datetime) -> datetime:
        """Start of the first bucket that does not start before `at`; `at` itself where the calendar ends before it."""
        floor = self.floor(at)
        try:
            return floor if floor == at else floor + self.width
        except OverflowError:
            return at


BUCKETS = {
    bucket.name: bucket
    for bucket in (
        Bucket("1m", timedelta(minutes=1)),
        Bucket("5m", timedelta(minutes=5)),
        Bucket("15m", timedelta(minutes=15)),
        Bucket("1h", timedelta(hours=1)),
        Bucket("1d", timedelta(days=1)),
    )
}
