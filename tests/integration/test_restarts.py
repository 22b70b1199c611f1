"""A program that is kept running is started again without a pause, as often as it is killed after it has served."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from signal import Signals

import pytest
from streaming import until

from nimbus_server.local.console import Console
from nimbus_server.local.processes import Backoff, Child
from nimbus_server.local.programs import Probe, Program

KILLS = 5
# Five starts of Python on a machine with other work. The pauses after five deaths in a row come to more than that.
SECONDS_MAX = 5.0


async def ready() -> Probe:
    return Probe.READY


@pytest.fixture
async def child(scratch: Path) -> AsyncIterator[Child]:
    program = Program(
        name="Sleeper",
        command=(sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"),
        environment={},
        log=scratch / "sleeper.log",
        probe=ready,
        stop=((Signals.SIGKILL, 5),),
    )
    leash = os.open(os.devnull, os.O_RDONLY)
    child = Child(program, Console(), leash)
    await child.start()
    yield child
    await child.stop()
    os.close(leash)


def pid_of(child: Child) -> int:
    assert child._process is not None
    return child._process.pid


async def test_a_program_that_is_killed_after_it_has_served_is_back_at_once_every_time(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "SERVED_SECONDS", 0.05)
    seconds = 0.0
    for _ in range(KILLS):
        await until(lambda: child._ready_at is not None and time.monotonic() > child._ready_at + 0.05)
        before, killed_at = pid_of(child), time.monotonic()
        child.send(Signals.SIGKILL)
        await until(lambda before=before: pid_of(child) != before)
        await until(lambda: child._ready_at is not None)
        seconds += time.monotonic() - killed_at
    assert seconds < SECONDS_MAX


async def test_a_program_that_dies_as_soon_as_it_serves_is_given_more_and_more_time(child: Child) -> None:
    pauses = []
    for _ in range(4):
        await until(lambda: child._ready_at is not None)
        before, killed_at = pid_of(child), time.monotonic()
        child.send(Signals.SIGKILL)
        await until(lambda before=before: pid_of(child) != before)
        pauses.append(time.monotonic() - killed_at)
        await asyncio.sleep(0)
    assert pauses[1] >= 0.1
    assert pauses[2] >= 0.2
    assert pauses[3] >= 0.4
