"""Writes to a stack by every way in while its parts are killed, and then looks for what was lost or stored twice."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from conftest import Account, Stack, new_account
from crash_check import stored_events, violations
from crash_killer import Kill, Victim, deaths, defects, kill
from crash_ledger import Ledger
from crash_writers import writers
from own_valkey import Valkey

BACK_SECONDS_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run: `violations` are counts by what is wrong.

    `served_seconds` are from each kill to when every writer was served again.
    """

    seconds: float
    served_seconds: dict[Victim, list[float]]
    sent: int
    acked: int
    stored: int
    duplicates: int
    failed_attempts: int
    refused: list[str]
    violations: dict[str, int]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.violations.values())

    def table(self) -> str:
        """All of it for a person."""
        rows: dict[str, object] = {"seconds": f"{self.seconds:.0f}"}
        for victim, times in self.served_seconds.items():
            rows[f"kills of {victim}"] = (
                f"{len(times)}, all served after {sorted(times)[len(times) // 2]:.1f} s, at most {max(times):.1f} s"
            )
        rows |= {
            "kills": sum(map(len, self.served_seconds.values())),
            "events sent": self.sent,
            "events acknowledged": self.acked,
            "events acknowledged as duplicates": self.duplicates,
            "events stored": self.stored,
            "attempts that failed": self.failed_attempts,
        }
        return "\n".join(f"  {name:<45}{value}" for name, value in (rows | self.violations).items())


class Crashes:
    """Run it with `run`, once. Up to `batches` are acknowledged between one kill, when all is well, and the next.

    With each kill a `valkey` is killed too, and comes back when all is well.
    """

    def __init__(
        self,
        stack: Stack,
        folder: Path,
        *,
        projects: int,
        batches: int,
        valkey: Valkey | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._stack = stack
        self._batches = batches
        self._valkey = valkey
        self._folder = folder
        self.accounts: list[Account] = [new_account(stack) for _ in range(projects)]
        self._say = say
        self._stopping = asyncio.Event()
        self._names: list[str] = []
        self._served_seconds: dict[Victim, list[float]] = {}

    async def run(self, victims: Iterable[Victim]) -> Report:
        """Kill these, one after another; then compare. Raises TimeoutError where the stack does not come back."""
        started = time.monotonic()
        with Ledger(self._folder) as ledger:
            async with asyncio.TaskGroup() as group:
                for name, writing in writers(self._stack, self.accounts, ledger, self._stopping):
                    self._names.append(name)
                    group.create_task(writing)
                try:
                    await self._everyone_gets_on(ledger, Counter())
                    for victim in victims:
                        await self._kill(victim, ledger)
                finally:
                    self._stopping.set()
            seconds = time.monotonic() - started
            return self._report(seconds, ledger)

    async def _kill(self, victim: Victim, ledger: Ledger) -> None:
        enough = ledger.acked_batches.total() + random.randint(1, self._batches)
        await self._until(lambda: ledger.acked_batches.total() >= enough, "the writers stand still")
        if self._valkey:
            self._valkey.kill()
        one = kill(self._stack, victim)
        before = Counter(ledger.acked_batches)
        await self._until(one.is_over, f"{one.name} is not back")
        back_seconds = time.monotonic() - one.at
        await self._everyone_gets_on(ledger, before)
        if self._valkey:
            self._valkey.start()
        self._note(one, back_seconds, ledger)

    async def _everyone_gets_on(self, ledger: Ledger, before: Counter[str]) -> None:
        await self._until(
            lambda: all(ledger.acked_batches[name] > before[name] for name in self._names),
            "not everyone is served again",
        )

    async def _until(self, true: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + BACK_SECONDS_MAX
        while not true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise}:\n" + "".join(self._stack.lines[-20:]))
            await asyncio.sleep(0.02)

    def _note(self, one: Kill, back_seconds: float, ledger: Ledger) -> None:
        served_seconds = time.monotonic() - one.at
        self._served_seconds.setdefault(one.victim, []).append(served_seconds)
        kills = sum(map(len, self._served_seconds.values()))
        self._say(
            f"{kills:4}  {one.name:<11} back after {back_seconds:4.1f} s, all served after {served_seconds:4.1f} s;"
            f" {ledger.acked_events:>9,} events acknowledged, {ledger.duplicates:,} as duplicates,"
            f" {ledger.failed_attempts:,} attempts failed, {len(ledger.refused)} refused"
        )

    def _report(self, seconds: float, ledger: Ledger) -> Report:
        dsn, kills = self._stack.dsn(), sum(map(len, self._served_seconds.values()))
        found = violations(dsn, ledger) | {
            "requests refused for good": len(ledger.refused),
            "deaths of another cause": deaths(self._stack) - kills,
            "defects in the logs of workers": defects(self._stack),
        }
        return Report(
            seconds,
            self._served_seconds,
            ledger.sent_events,
            ledger.acked_events,
            stored_events(dsn),
            ledger.duplicates,
            ledger.failed_attempts,
            ledger.refused,
            found,
        )
