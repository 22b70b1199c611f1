"""What time it is: a function, so that a test can say it; and moments as numbers, for the way of an event."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND
# 2000-01-01, from which PostgreSQL's timestamps count, in microseconds since 1970.
POSTGRES_EPOCH = 946_684_800_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """The current moment in UTC."""
    return datetime.now(UTC)


def micros(at: datetime) -> int:
    """Microseconds since 1970."""
    since = at - _EPOCH
    return since.days * DAY + since.seconds * SECOND + since.microseconds


def all_micros(moments: Iterable[datetime]) -> list[int]:
    """As `micros`, of many."""
    return [(at.days * 86_400 + at.seconds) * SECOND + at.microseconds for at in [at - _EPOCH for at in moments]]


def moment(at: int) -> datetime:
    """The moment so many microseconds after 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=at)
