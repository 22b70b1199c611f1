"""A program that the stack consists of, and how a process of it is started."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from signal import Signals

from nimbus_server.local.tether import tethered


class Probe(Enum):
    """What a program answers when asked whether it serves."""

    SILENT = auto()
    COMING = auto()  # alive and at work, as PostgreSQL is during crash recovery: it gets all the time that it needs
    READY = auto()


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a program runs as, where it is not ours."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, how to know that it serves, and how to end it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    probe: Callable[[], Awaitable[Probe]]
    # Signals and the seconds that each gets to work before the next. The first is also what an orphan gets.
    stop: Sequence[tuple[Signals, float]]
    account: Account | None = None
    # Clears away, in a thread and before each start, what a process that was killed left in the way of the next.
    clear: Callable[[], None] = lambda: None


async def spawn(
    command: Sequence[str],
    *,
    leash: int,
    orphan_signal: Signals = Signals.SIGKILL,
    environment: Mapping[str, str],
    account: Account | None = None,
    output: int,
) -> asyncio.subprocess.Process:
    """Start `command` in a session of its own, out of reach of Ctrl-C, so that it dies with this process.

    It inherits the descriptor `leash`; `output` is a descriptor or `asyncio.subprocess.PIPE`. Raises OSError.
    """
    ids = (account.uid, account.gid) if account else None
    return await asyncio.create_subprocess_exec(
        *tethered(command, orphan_signal, ids),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(environment),
        cwd="/" if account else None,  # another user may not be let into ours
        start_new_session=True,
        pass_fds=(leash,),
    )


async def run_to_end(
    command: Sequence[str], *, leash: int, environment: Mapping[str, str], account: Account | None
) -> tuple[int, str]:
    """Run a program that ends by itself; return its exit status and what it said. Raises OSError."""
    process = await spawn(
        command, leash=leash, environment=environment, account=account, output=asyncio.subprocess.PIPE
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace").strip()
