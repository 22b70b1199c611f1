"""How long a call waits for the database before its caller is told to come back."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from nimbus_server.errors import storage_unavailable

# Less than the edge gives a call by default.
SECONDS_MAX = 10.0
# Left of a caller's deadline for the answer itself, but no more than half of it.
ANSWER_SECONDS = 0.5

T = TypeVar("T")


def until(deadline_seconds: float | None) -> float:
    """When it is over for a call that has so many seconds left, in the event loop's time."""
    seconds = SECONDS_MAX
    if deadline_seconds is not None:
        seconds = min(max(deadline_seconds - ANSWER_SECONDS, deadline_seconds / 2), SECONDS_MAX)
    return asyncio.get_running_loop().time() + seconds


async def in_time(until: float, awaitable: Awaitable[T]) -> T:
    """What is waited for. Raises NimbusError with STORAGE_UNAVAILABLE where it has not come by then.

    Then it is cancelled, and left to itself: psycopg asks the database to let it go, and waits for an answer.
    """
    waiting = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({waiting}, timeout=until - asyncio.get_running_loop().time())
        if waiting.done():
            return waiting.result()
    finally:
        waiting.cancel()
    waiting.add_done_callback(lambda late: late.cancelled() or late.exception())
    raise storage_unavailable()
