"""What is measured for each figure."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import psutil
from conftest import Stack
from deliveries import delay_of_many, delay_of_one, delay_of_ten_projects, delivery_rate
from exports import export_rate
from goals import P50, P99, RATE, Figure, compare
from history import import_rate
from lab import Lab, Turn, new_target, say, settle
from questions import fresh_latency, funnels, question_latencies
from subscribers import open_streams, stuck_streams, subscription

from nimbus_server.bench.calls import grpc_ingest, rest_ingest
from nimbus_server.bench.events import Requests, as_json, as_proto
from nimbus_server.bench.load import FailedError, Result, Send, drive
from nimbus_server.bench.scenarios import hourly_counts
from nimbus_server.bench.target import Target, open_channel

Sends = AbstractAsyncContextManager[list[Send]]
IDLE, STUCK = 1000, 10
# Longer than others: to open so many streams costs the collector a long pause, which is not what is asked for.
BESIDE_SECONDS = 15.0
BATCH, IN_FLIGHT, CONNECTIONS = 1000, 8, 100
MEGABYTE = 1_000_000
# Points at which memory is read, and the seconds that the way to each may take.
MEMORY_POINTS, MEMORY_SECONDS_MAX = 10, 900
FLAT = 1.1


def grpc_batches(target: Target, *, repeating: bool = False) -> Sends:
    return grpc_ingest(target, Requests(as_proto, target.project_id, BATCH, repeating=repeating), IN_FLIGHT)


def rest_batches(target: Target) -> Sends:
    return rest_ingest(target, Requests(as_json, target.project_id, BATCH), IN_FLIGHT)


def rest_single(target: Target) -> Sends:
    return rest_ingest(target, Requests(as_json, target.project_id, 1), CONNECTIONS)


@asynccontextmanager
async def rest_refused(target: Target) -> AsyncIterator[list[Send]]:
    """Single events for a project that isn't the key's: they take the same way, up to the queue.

    Events that are all refused won't do: their key is checked by a commit.
    """

    def answered(send: Send) -> Send:
        async def call() -> int:
            try:
                return await send()
            except FailedError as error:
                if error.reason != "PROJECT_MISMATCH":
                    raise
                return 1

        return call

    async with rest_ingest(target, Requests(as_json, str(uuid4()), 1), CONNECTIONS) as sends:
        yield [answered(send) for send in sends]


def worker_megabytes(stack: Stack) -> float:
    """Resident memory of the largest worker."""
    assert stack.process is not None
    processes = psutil.Process(stack.process.pid).children(recursive=True)
    return max(p.memory_info().rss for p in processes if "serve" in p.cmdline()) / MEGABYTE


def into_empty_table(lab: Lab, sends_to: Callable[[Target], Sends], seconds: float | None = None) -> Turn:
    """A turn that sends to a new project in an emptied table, for as long as all turns or for `seconds`."""

    async def turn() -> Result:
        settle(lab.stack, emptied=True)
        async with sends_to(new_target(lab.stack)) as sends:
            return await drive(sends, seconds or lab.effort.seconds)

    return turn


async def grpc_rate(lab: Lab) -> Figure:
    name = "ingest, gRPC, 1,000 a request, 8 in flight"
    references, results = await lab.alternate(name, (await lab.copies()).run, into_empty_table(lab, grpc_batches))
    figure = compare(name, RATE, "COPY", references, results)
    figure.expect("≥ 0.6", figure.ratio >= 0.6)
    figure.expect("≥ 150,000/s", RATE.median(results) >= 150_000)
    return figure


async def rest_rate(lab: Lab) -> Figure:
    name = "ingest, REST, 1,000 a request, 8 in flight"
    references, results = await lab.alternate(name, (await lab.copies()).run, into_empty_table(lab, rest_batches))
    figure = compare(name, RATE, "COPY", references, results)
    figure.expect("≥ 0.4", figure.ratio >= 0.4)
    figure.expect("≥ 100,000/s", RATE.median(results) >= 100_000)
    return figure


async def single_rate(lab: Lab) -> Figure:
    name = "ingest, REST, 1 event a request, 100 connections"
    references, results = await lab.alternate(
        name, into_empty_table(lab, rest_refused), into_empty_table(lab, rest_single)
    )
    figure = compare(name, RATE, "the same, refused", references, results)
    figure.result += f", {P99.text(results)}"
    figure.expect("≥ 0.75", figure.ratio >= 0.75)
    figure.expect("≥ 3,500/s", RATE.median(results) >= 3500)
    figure.expect("p99 < 60 ms", P99.median(results) < 0.060)
    return figure


async def repeats_rate(lab: Lab) -> Figure:
    name = "ingest, gRPC, every tenth event a repeat"
    repeating = into_empty_table(lab, lambda target: grpc_batches(target, repeating=True))
    references, results = await lab.alternate(name, into_empty_table(lab, grpc_batches), repeating)
    figure = compare(name, RATE, "no repeats", references, results)
    figure.expect("≥ 0.5", figure.ratio >= 0.5)
    return figure


async def stored_rate(lab: Lab) -> Figure:
    stack, target = await lab.stored()

    async def turn() -> Result:
        settle(stack, emptied=False)
        async with grpc_batches(target) as sends:
            return await drive(sends, lab.effort.seconds)

    name = f"ingest, gRPC, into {lab.effort.rows:,} stored rows"
    references, results = await lab.alternate(name, into_empty_table(lab, grpc_batches), turn)
    figure = compare(name, RATE, "empty table", references, results)
    figure.expect("≥ 0.8", figure.ratio >= 0.8)
    return figure


async def hourly_latency(lab: Lab) -> Figure:
    stack, target = await lab.stored()

    def turn(asked: Target) -> Turn:
        async def ask() -> Result:
            async with hourly_counts(asked) as sends:
                return await drive(sends, lab.effort.seconds)

        return ask

    settle(stack, emptied=False)
    name = f"hourly counts over 24 h, {lab.effort.rows:,} events stored, gRPC"
    references, results = await lab.alternate(name, turn(new_target(stack)), turn(target))
    figure = compare(name, P50, "empty project", references, results)
    figure.expect("≤ 3", figure.ratio <= 3)
    figure.expect("p50 < 5 ms", P50.median(results) < 0.005)
    return figure


async def beside_streams(lab: Lab) -> Figure:
    seconds = max(BESIDE_SECONDS, lab.effort.seconds)

    async def turn() -> Result:
        settle(lab.stack, emptied=True)
        target = new_target(lab.stack)
        idle = [subscription(target, name="never") for _ in range(IDLE)]
        async with (
            open_streams(target.grpc_target, idle, lambda _number, _message: None),
            stuck_streams(target, STUCK),
            rest_single(target) as sends,
        ):
            return await drive(sends, seconds)

    name = (
        f"ingest, REST, 1 event a request, beside {IDLE:,} idle subscribers and {STUCK} that never read, {seconds:g} s"
    )
    references, results = await lab.alternate(name, into_empty_table(lab, rest_single, seconds), turn)
    figure = compare(name, P99, "without them", references, results)
    figure.expect("≤ 1.25", figure.ratio <= 1.25)
    return figure


async def memory(lab: Lab) -> Figure:
    stack = lab.start("memory", "--workers", "1")
    target, part = new_target(stack), lab.effort.events // MEMORY_POINTS
    points, sent, failed = [worker_megabytes(stack)], 0, 0
    async with grpc_batches(target) as sends:
        for _ in range(MEMORY_POINTS):
            result = await drive(sends, MEMORY_SECONDS_MAX, events_max=part)
            sent, failed = sent + result.events, failed + sum(result.errors.values())
            points.append(worker_megabytes(stack))
            say(f"memory: {points[-1]:.0f} MB after {sent:,} events, {result.events_per_second:,.0f}/s")
    figure = Figure(
        f"memory of one worker, {sent:,} events, gRPC",
        f"before: {points[0]:.0f} MB",
        f"after: {points[-1]:.0f} MB; " + " ".join(f"{point:.0f}" for point in points[1:]),
        points[-1] / points[0],
    )
    figure.expect("< 150 MB", max(points) < 150)
    figure.expect("flat", points[-1] <= FLAT * points[MEMORY_POINTS // 2])
    figure.expect("no call failed", failed == 0)
    return figure


def beside_analyst(lab: Lab, sends_to: Callable[[Target], Sends]) -> tuple[Turn, Turn]:
    """Turns on a stack without an analyst, and on one whose analyst exports and has one question at a time."""

    async def without() -> Result:
        settle(lab.unanswered, emptied=True)
        async with sends_to(new_target(lab.unanswered)) as sends:
            return await drive(sends, seconds)

    async def beside() -> Result:
        settle(lab.stack, emptied=True)
        target = new_target(lab.stack)
        async with sends_to(target) as sends, open_channel(target.grpc_target) as channel:
            asking = asyncio.create_task(drive([funnels(channel, target)], seconds))
            result = await drive(sends, seconds)
            asked = await asking
        say(f"questions meanwhile: {len(asked.latencies)}, {P50.text([asked])}, failed: {dict(asked.errors)}")
        return result

    seconds = max(BESIDE_SECONDS, lab.effort.seconds)
    return without, beside


async def rate_beside_analyst(lab: Lab) -> Figure:
    name = "ingest, gRPC, 1,000 a request, while segments are exported and one question runs at a time"
    figure = compare(name, RATE, "without", *await lab.alternate(name, *beside_analyst(lab, grpc_batches)))
    figure.expect("≥ 0.8", figure.ratio >= 0.8)
    return figure


async def latency_beside_analyst(lab: Lab) -> Figure:
    name = "ingest, REST, 1 event a request, while segments are exported and one question runs at a time"
    figure = compare(name, P99, "without", *await lab.alternate(name, *beside_analyst(lab, rest_single)))
    figure.expect("≤ 1.5", figure.ratio <= 1.5)
    return figure


MEASUREMENTS: dict[str, Callable[[Lab], Awaitable[Figure | list[Figure]]]] = {
    "grpc": grpc_rate,
    "rest": rest_rate,
    "single": single_rate,
    "repeats": repeats_rate,
    "import": import_rate,
    "stored": stored_rate,
    "hourly": hourly_latency,
    "memory": memory,
    "deliveries": delivery_rate,
    "beside": beside_streams,
    "delay": delay_of_one,
    "delay1000": delay_of_many,
    "delay10x100": delay_of_ten_projects,
    "questions": question_latencies,
    "fresh": fresh_latency,
    "export": export_rate,
    "beside-analyst": rate_beside_analyst,
    "single-beside-analyst": latency_beside_analyst,
}
