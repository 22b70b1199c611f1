"""Keeps a number of calls in flight and measures each."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

# Sends one request and returns the number of events in it. Raises FailedError.
Send = Callable[[], Awaitable[int]]


class FailedError(Exception):
    """A call failed; the text is its short reason."""


@dataclass(slots=True)
class Result:
    """What came of a load: seconds it took, the latency of each call in seconds, and failed calls by reason."""

    seconds: float = 0.0
    events: int = 0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

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


async def drive(sends: list[Send], until: Callable[[Result], bool], step: Callable[[Result], None]) -> Result:
    """Call each of `sends` again and again, all at once, until `until` says so; `step` is told after each call."""
    result, started = Result(), time.perf_counter()

    async def one(send: Send) -> None:
        while not until(result):
            begun = time.perf_counter()
            try:
                events = await send()
                result.events += events
                result.latencies.append(time.perf_counter() - begun)
            except FailedError as error:
                result.errors[str(error)] += 1
            result.seconds = time.perf_counter() - started
            step(result)

    await asyncio.gather(*map(one, sends))
    return result


def for_seconds(seconds: float) -> Callable[[Result], bool]:
    """An end after so many seconds."""
    end = time.perf_counter() + seconds
    return lambda _: time.perf_counter() >= end
