"""What time it is: a function, so that a test can say it."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def now() -> datetime:
    """The current moment in UTC."""
    return datetime.now(UTC)
