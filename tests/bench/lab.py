"""The servers that figures are measured on: `nimbus up` on free ports, with a database of its own."""

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import psycopg
from conftest import Stack, new_account
from copy_reference import CopyReference
from stored_rows import fill

from nimbus_server.bench.load import Result
from nimbus_server.bench.target import Target

# A line for each refused call would make the reference of refused calls slower than the way that they take.
ENVIRONMENT = {"NIMBUS_LOG_LEVEL": "ERROR"}

Turn = Callable[[], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: turns, seconds for each, events stored beforehand, events sent for the memory."""

    rounds: int
    seconds: float
    rows: int
    events: int


@dataclass
class Lab:
    """Starts servers when they are wanted and stops them at the end."""

    folder: Path
    effort: Effort
    _running: ExitStack = field(default_factory=ExitStack)
    _copies: CopyReference | None = None
    _stored: tuple[Stack, Target] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start(self, name: str, *arguments: str, **environment: str) -> Stack:
        """A stack of its own."""
        say(f"Starting a stack for {name} ...")
        stack = Stack(self.folder / name, ENVIRONMENT | environment, arguments)
        self._running.callback(_stop, stack)
        return stack.start()

    @cached_property
    def stack(self) -> Stack:
        """The one for everything that wants an empty table."""
        return self.start("load")

    @cached_property
    def unanswered(self) -> Stack:
        """One without an analyst: nobody exports what is stored there."""
        return self.start("unanswered", NIMBUS_ANALYST="false")

    async def copies(self) -> CopyReference:
        """COPY into a database of its own on the same server."""
        if self._copies is None:
            self._copies = await CopyReference.create(self.stack, self.effort.seconds)
        return self._copies

    async def stored(self) -> tuple[Stack, Target]:
        """A second stack with a project that holds many events."""
        if self._stored is None:
            stack = self.start("stored")
            target = new_target(stack)
            await fill(stack, target, self.effort.rows, say)
            self._stored = stack, target
        return self._stored

    async def alternate(self, what: str, reference: Turn, measured: Turn) -> tuple[list[Result], list[Result]]:
        """Results of both, which take turns: A B A B A."""
        references, results = [await reference()], []
        for number in range(self.effort.rounds):
            results.append(await measured())
            references.append(await reference())
            say(f"{what}, turn {number + 1} of {self.effort.rounds}: {_short(references[-1])}, {_short(results[-1])}")
        return references, results


def say(line: str) -> None:
    """Tell the person who waits, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def new_target(stack: Stack) -> Target:
    """A new project. It is not deleted: the purge would run into what is measured next."""
    account = new_account(stack)
    return Target(stack.url, stack.grpc_target, account.project_id, account.api_key_id, account.api_key_secret)


def settle(stack: Stack, *, emptied: bool) -> None:
    """Have the database write what it has put off, so that each turn begins alike; `emptied`, without any events."""
    with psycopg.connect(stack.dsn(), autocommit=True) as connection:
        if emptied:
            connection.execute("TRUNCATE events, event_keys, event_counts")
        connection.execute("CHECKPOINT")


def _stop(stack: Stack) -> None:
    if stack.process is None:
        return
    try:
        stack.stop()
    except subprocess.TimeoutExpired:  # it may have much to write, and nobody will read it
        stack.process.kill()
        stack.process.wait()


def _short(result: Result) -> str:
    rate = f"{result.events_per_second or result.calls_per_second:,.0f}/s"
    return f"{rate} (p50 {result.percentile(50) * 1000:.1f} ms)" if result.latencies else rate
