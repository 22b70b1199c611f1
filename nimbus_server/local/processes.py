"""One child process, kept running: started, watched until it serves, started again when it dies, stopped."""

import asyncio
import os
import time
from contextlib import suppress
from signal import Signals

from nimbus_server.errors import StartupError
from nimbus_server.local import logs
from nimbus_server.local.console import Console
from nimbus_server.local.programs import Probe, Program, spawn

# A program that has never served yet is given up after so many attempts, or so long without a sign of life.
FIRST_ATTEMPTS = 3
READY_SECONDS_MAX = 60.0
PROBE_SECONDS_MIN, PROBE_SECONDS_MAX = 0.02, 0.5


class Backoff:
    """The pauses before restarts: none before the first, then 0.1 s doubling to 5 s.

    Over again after SERVED_SECONDS of service: a process that was killed is missed, one that dies by itself soon after
    each start only takes from the others.
    """

    SERVED_SECONDS = 5.0

    def __init__(self) -> None:
        self._next = 0.0

    def pause_after(self, served_seconds: float) -> float:
        """Seconds to wait before the next start of a process that served for so long."""
        pause = 0.0 if served_seconds >= self.SERVED_SECONDS else self._next
        self._next = 0.1 if pause == 0 else min(pause * 2, 5.0)
        return pause


def how_it_ended(status: int) -> str:
    """What an exit status says, in words that follow a name."""
    if status >= 0:
        return f"ended with status {status}"
    names = {signal.value: signal.name for signal in Signals}
    return f"was killed by {names.get(-status, f'signal {-status}')}"


class Child:
    """A program that is kept running from `start` to `stop`."""

    def __init__(self, program: Program, console: Console, leash: int) -> None:
        self.program = program
        self._console = console
        self._leash = leash
        self._process: asyncio.subprocess.Process | None = None
        self._ended_at = 0.0
        self._ready_at: float | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start it and return when it serves; from then on it is kept running.

        Raises StartupError with its last words where it ends again and again, or never serves.
        """
        self._task = asyncio.create_task(self._keep_running(), name=self.program.name)
        await asyncio.wait({self._task, self._first_ready}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            await self._task
        if self._first_ready.done():
            await self._first_ready

    async def stop(self) -> None:
        """End it, the hard way if need be; return when it has ended."""
        self._stopping.set()
        if self._task is None:
            return
        for signal, seconds in self.program.stop:
            self.send(signal)
            await asyncio.wait({self._task}, timeout=seconds)
            if self._task.done():
                break
            self._console.warn(f"{self.program.name} did not stop within {seconds:.0f} s of {signal.name}.")
        if not self._first_ready.cancel() and not self._first_ready.cancelled():
            self._first_ready.exception()  # seen, if by nobody else

    def send(self, signal: Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal)

    def kill(self) -> None:
        """End it at once, for good."""
        self._stopping.set()
        self.send(Signals.SIGKILL)

    async def _keep_running(self) -> None:
        backoff = Backoff()
        attempts, said_before = 0, ""
        while True:
            since = logs.size(self.program.log)
            self._ready_at = None
            ended = await self._run()
            if self._stopping.is_set():
                return
            attempts += 1
            # One that was killed from outside had no time for words; what it said last has nothing to do with it.
            words = "" if ended.endswith(("SIGKILL", "SIGTERM", "SIGINT")) else logs.last_words(self.program.log, since)
            if attempts >= FIRST_ATTEMPTS and not self._first_ready.done():
                self._fail(f"{self.program.name} can't be started: it {ended}.", words)
                return
            self._ended_at = time.monotonic()
            pause = backoff.pause_after(0.0 if self._ready_at is None else self._ended_at - self._ready_at)
            again = f"again in {pause:.1f} s" if pause else "again now"
            self._console.warn(f"{self.program.name} {ended}; starting it {again}. Log: {self.program.log}")
            if words and words != said_before:
                self._console.warn(f"  Its last words: {words}")
            said_before = words
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                return

    async def _run(self) -> str:
        """Run it once, and say how it ended."""
        try:
            await asyncio.to_thread(self.program.clear)
            log = logs.open_log(self.program.log)
            try:
                self._process = process = await spawn(
                    self.program.command,
                    leash=self._leash,
                    orphan_signal=self.program.stop[0][0],
                    environment=self.program.environment,
                    account=self.program.account,
                    output=log,
                )
            finally:
                os.close(log)
        except OSError as error:
            return f"could not be run ({error})"
        if self._stopping.is_set():
            # Asked to stop while it was being born, when there was nothing yet to send a signal to.
            self.send(self.program.stop[0][0])
        watch = asyncio.create_task(self._watch_until_ready())
        try:
            status = await process.wait()
        finally:
            watch.cancel()
        return how_it_ended(status)

    async def _watch_until_ready(self) -> None:
        sign_of_life = time.monotonic()
        pause = PROBE_SECONDS_MIN
        since = logs.size(self.program.log)
        while (answer := await self._ask()) is not Probe.READY:
            if answer is Probe.COMING:
                sign_of_life = time.monotonic()
            elif time.monotonic() - sign_of_life > READY_SECONDS_MAX and not self._first_ready.done():
                self._fail(
                    f"{self.program.name} did not begin to serve within {READY_SECONDS_MAX:.0f} s.",
                    logs.last_words(self.program.log, since),
                )
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, PROBE_SECONDS_MAX)
        self._ready_at = time.monotonic()
        if self._first_ready.done():
            self._console.line(f"{self.program.name} is back after {time.monotonic() - self._ended_at:.1f} s.")
        else:
            self._first_ready.set_result(None)

    async def _ask(self) -> Probe:
        try:
            return await self.program.probe()
        except Exception as error:  # noqa: BLE001  # else it would look like a program that never gets ready
            self._console.warn(f"{self.program.name} can't be asked whether it serves: {error!r}")
            return Probe.SILENT

    def _fail(self, what: str, words: str) -> None:
        said = f" It said: {words.rstrip('.')}." if words else ""
        self._first_ready.set_exception(StartupError(f"{what}{said} Its log is {self.program.log}."))
