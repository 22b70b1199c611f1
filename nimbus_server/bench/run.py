"""`nimbus bench`: one scenario after the other against a running Nimbus, and a table of what came of them."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nimbus_server.bench.calls import CONNECT_SECONDS_MAX
from nimbus_server.bench.failures import http_failure
from nimbus_server.bench.http import HttpConnection
from nimbus_server.bench.load import FailedError, Result, drive
from nimbus_server.bench.report import ADVICE, sheet_of
from nimbus_server.bench.scenarios import Load, Scenario, hourly_counts, scenarios
from nimbus_server.bench.target import Target, temporary_project
from nimbus_server.errors import StartupError
from nimbus_server.settings import require_sendable


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, for how many seconds each, and how to show it.

    `key` is a project, its key id and its secret; without one there is a temporary project.
    """

    url: str
    grpc_target: str
    seconds: float
    load: Load
    key: tuple[str, str, str] | None
    markdown: bool


async def bench(options: Options) -> int:
    """Measure, print the table and return the exit status: 1 where a call failed.

    Raises StartupError where nothing can be measured.
    """
    if not _is_http(options.url):
        raise StartupError(f"--url must be an http:// address, which {options.url!r} is not: TLS is not measured.")
    _, key_id, secret = options.key or (None, None, None)
    require_sendable({"--grpc-target": options.grpc_target, "--key-id": key_id, "NIMBUS_BENCH_SECRET": secret})
    async with _project(options) as target:
        await _check(target)
        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=2,  # drawing takes from the machine too
        )
        with bars:
            results = [
                (scenario, await _measure(scenario, options.seconds, bars))
                for scenario in scenarios(target, options.load)
            ]
        sheet_of(results).print(markdown=options.markdown)
    return int(any(result.errors for _, result in results))


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _project(options: Options) -> AbstractAsyncContextManager[Target]:
    if options.key:
        return nullcontext(Target(options.url, options.grpc_target, *options.key))
    return temporary_project(options.url, options.grpc_target)


async def _check(target: Target) -> None:
    """Raise StartupError unless both addresses lead to a Nimbus that takes the key."""
    try:
        async with hourly_counts(target) as (send,):
            await send()
    except FailedError as error:
        raise _hopeless(target.grpc_target, error) from None
    path = f"/v1/metrics?project_id={target.project_id}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            connection = await HttpConnection.open(target.url)
            status, body = await connection.request(target.http_request("GET", path))
        connection.close()
        if status != 200:
            raise http_failure(status, body)
    except OSError as error:
        raise StartupError(f"Nimbus does not answer at {target.url} (--url). {error}") from None
    except FailedError as error:
        raise _hopeless(target.url, error) from None


def _hopeless(address: str, error: FailedError) -> StartupError:
    return StartupError(ADVICE.get(error.reason) or f"Nimbus at {address} can't be measured. {error}")


async def _measure(scenario: Scenario, seconds: float, bars: Progress) -> Result:
    unit = "events/s" if scenario.sends_events else "calls/s"
    bar = bars.add_task(scenario.name, total=seconds, rate="")
    seen_at, seen = time.perf_counter(), 0

    def watch(result: Result) -> None:
        nonlocal seen_at, seen
        now, count = time.perf_counter(), result.events if scenario.sends_events else len(result.latencies)
        bars.update(bar, advance=now - seen_at, rate=f"{(count - seen) / (now - seen_at):,.0f} {unit}")
        seen_at, seen = now, count

    async with scenario.start() as sends:
        seen_at = time.perf_counter()
        result = await drive(sends, seconds, watch=watch)
    rate = result.events_per_second if scenario.sends_events else result.calls_per_second
    bars.update(bar, completed=seconds, rate=f"{rate:,.0f} {unit}")
    return result
