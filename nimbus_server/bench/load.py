"""Keeps a number of calls in flight and measures each."""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

# Sends one request and returns the number of events in it. Raises FailedError.
Send = Callable[[], Awaitable[int]]

# Whoever failed waits, so that a server that is gone is not asked as fast as a loop can run.
PAUSE_AFTER_ERROR_SECONDS = 0.1
WATCH_SECONDS = 0.25


class FailedError(Exception):
    """A call failed, or some of its events: a short `reason` to count by, and a `message` for a person."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass(slots=True)
class Result:
    """What came of a load: seconds it took, the latency of each call in seconds, and failed calls by reason.

    `client_cores` is what this process itself took meanwhile, in cores.
    """

    seconds: float = 0.0
    events: int = 0
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    client_cores: float = 0.0

    @property
    def events_per_second(self) -> float:
        """Rate of events whose call succeeded."""
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def calls_per_second(self) -> float:
        """Rate of calls that succeeded."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, percent: float) -> float:
        """The latency in seconds that so many percent of the calls kept under; 0 without calls."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


async def drive(
    sends: Sequence[Send],
    seconds: float,
    *,
    events_max: int | None = None,
    watch: Callable[[Result], None] | None = None,
) -> Result:
    """Call each of `sends` again and again, all at once, for so many seconds or until so many events are sent.

    What is in flight at the end is waited for. `watch` sees the result a few times a second.
    """
    result, started, cpu = Result(), time.perf_counter(), time.process_time()

    async def one(send: Send) -> None:
        while time.perf_counter() - started < seconds and (events_max is None or result.events < events_max):
            begun = time.perf_counter()
            try:
                events = await send()
            except FailedError as error:
                result.errors[error.reason] += 1
                await asyncio.sleep(PAUSE_AFTER_ERROR_SECONDS)
            else:
                ended = time.perf_counter()
                result.events += events
                result.latencies.append(ended - begun)
                result.seconds = ended - started

    async def show() -> None:
        while watch:
            await asyncio.sleep(WATCH_SECONDS)
            watch(result)

    watching = asyncio.create_task(show())
    try:
        async with asyncio.TaskGroup() as group:
            for send in sends:
                group.create_task(one(send))
    finally:
        watching.cancel()
    result.client_cores = (time.process_time() - cpu) / (time.perf_counter() - started)
    return result
