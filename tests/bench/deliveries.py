"""What subscribers are sent: how much, and how soon."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import Stack
from goals import P99, RATE, Figure, compare
from lab import Lab, new_target
from ready_made import BATCH_EVENTS, position_of
from stream_reference import RPC as REFERENCE_RPC
from subscribers import SHORT, Writer, open_streams, subscription

from nimbus_server.bench.load import Result
from nimbus_server.bench.target import Target, open_channel

SUBSCRIBERS = 1000
# Batches that are under way to subscribers at a time.
AHEAD = 16
EVENTS_PER_SECOND = 1000
DRAIN_SECONDS_MAX = 30


@contextmanager
def reference_server() -> Iterator[str]:
    """A process that sends ready-made bytes; gives its address."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "stream_reference.py"), str(SUBSCRIBERS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


async def ready_made(seconds: float) -> Result:
    """Deliveries of a server that has nothing else to do."""
    result = Result()

    def receive(_number: int, _message: bytes) -> None:
        result.events += BATCH_EVENTS

    calls = [(REFERENCE_RPC, b"", ())] * SUBSCRIBERS
    with reference_server() as address:
        async with open_streams(address, calls, receive):
            begun, before = time.perf_counter(), result.events
            await asyncio.sleep(seconds)
            result.seconds, result.events = time.perf_counter() - begun, result.events - before
    return result


async def live(target: Target, seconds: float) -> Result:
    """Deliveries of batches as they are committed; the next is sent when the slowest subscriber is not far behind."""
    result, arrived = Result(), Counter[int]()
    counts = [0] * SUBSCRIBERS
    room = asyncio.Semaphore(AHEAD)

    def receive(number: int, message: bytes) -> None:
        if len(message) < SHORT:
            return
        result.events += BATCH_EVENTS
        arrived[counts[number]] += 1
        if arrived[counts[number]] == SUBSCRIBERS:
            room.release()
        counts[number] += 1

    calls = [subscription(target, BATCH_EVENTS) for _ in range(SUBSCRIBERS)]
    async with open_channel(target.grpc_target) as channel, open_streams(target.grpc_target, calls, receive):
        writer, begun = Writer(target, channel), time.perf_counter()
        sends: set[asyncio.Task[None]] = set()
        while time.perf_counter() - begun < seconds:
            await room.acquire()
            task = asyncio.create_task(writer.send())
            sends.add(task)
            task.add_done_callback(sends.discard)
        result.seconds = time.perf_counter() - begun
        for task in list(sends):
            await task
    return result


async def paced(targets: list[Target], subscribers: int, seconds: float) -> Result:
    """From sending a batch to each of the subscribers of its project, at EVENTS_PER_SECOND over all projects."""
    result, complete = Result(), asyncio.Event()
    interval = BATCH_EVENTS / EVENTS_PER_SECOND
    batches_sent = int(seconds / interval)
    wanted = batches_sent * subscribers
    reached = [0] * (len(targets) * subscribers)
    async with open_channel(targets[0].grpc_target) as channel:
        for target in targets:
            await Writer(target, channel).send()  # the first one finds caches empty
        writers = [Writer(target, channel) for target in targets]

        def receive(number: int, message: bytes) -> None:
            if len(message) < SHORT:
                return
            now, sent_at = time.perf_counter(), writers[number // subscribers].sent_at
            batches = position_of(message) // BATCH_EVENTS - 1
            result.latencies.extend([now - at for at in sent_at[reached[number] : batches]])
            reached[number] = batches
            if len(result.latencies) == wanted:
                complete.set()

        calls = [subscription(target) for target in targets for _ in range(subscribers)]
        async with open_streams(targets[0].grpc_target, calls, receive):
            begun = time.perf_counter()
            sends = []
            for number in range(batches_sent):
                await asyncio.sleep(begun + number * interval - time.perf_counter())
                sends.append(asyncio.create_task(writers[number % len(writers)].send()))
            await asyncio.gather(*sends)
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await complete.wait()
            result.seconds = time.perf_counter() - begun
    result.events = len(result.latencies) * BATCH_EVENTS
    return result


async def delivery_rate(lab: Lab) -> Figure:
    stack = lab.start("deliveries", "--workers", "1")
    name = f"deliveries, {SUBSCRIBERS:,} subscribers on one project, {BATCH_EVENTS} events a batch, one worker"
    references, results = await lab.alternate(
        name, lambda: ready_made(lab.effort.seconds), lambda: live(new_target(stack), lab.effort.seconds)
    )
    figure = compare(name, RATE, "ready-made bytes", references, results)
    figure.expect("≥ 0.5", figure.ratio >= 0.5)
    return figure


async def _delay(lab: Lab, what: str, projects: int, subscribers: int) -> Figure:
    stack: Stack = lab.stack
    results = [
        await paced([new_target(stack) for _ in range(projects)], subscribers, lab.effort.seconds)
        for _ in range(lab.effort.rounds)
    ]
    alone = [await paced([new_target(stack)], 1, lab.effort.seconds)]
    figure = compare(
        f"sent to subscriber, {EVENTS_PER_SECOND:,} events/s, {what}", P99, "one subscriber", alone, results
    )
    figure.expect("p99 < 50 ms", P99.median(results) < 0.050)
    return figure


async def delay_of_one(lab: Lab) -> Figure:
    return await _delay(lab, "one subscriber", 1, 1)


async def delay_of_many(lab: Lab) -> Figure:
    return await _delay(lab, "1,000 subscribers on one project", 1, SUBSCRIBERS)


async def delay_of_ten_projects(lab: Lab) -> Figure:
    return await _delay(lab, "100 subscribers on each of ten projects", 10, 100)
