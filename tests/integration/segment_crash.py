"""Kills whoever writes the log and its segments, at random, while a checker compares the two."""

import asyncio
import multiprocessing
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import duckdb
import psycopg
from segment_files import Event, exporter_of, file_rows, files_below, log_rows, paths_of, put
from storage import opened, settings_for

from nimbus_server.clock import now
from nimbus_server.errors import NimbusError
from nimbus_server.postgres.database import Database
from nimbus_server.segments import cleanup, compact
from nimbus_server.segments.cleanup import Cleaner
from nimbus_server.segments.compact import Compactor
from nimbus_server.segments.erase import Eraser
from nimbus_server.segments.manifest import IdentityField, segment_path
from nimbus_server.segments.store import SegmentStore, StaleError
from nimbus_server.segments.upkeep_store import UpkeepStore
from nimbus_server.segments.workbench import LogAwayError

PEOPLE = 40
EVENTS_MAX = 200
PAUSE_SECONDS_MAX = 0.5
# What a worker may be told while another is at the same work, or just dead.
EXPECTED = (StaleError, NimbusError, LogAwayError)

# A process of one of the roles is told all but the first of these.
Role = Callable[[Database, str, Path, UUID, random.Random], Awaitable[int]]


async def write(database: Database, dsn: str, folder: Path, project: UUID, chance: random.Random) -> int:
    def event() -> Event:
        person = chance.choice((f"u{chance.randrange(PEOPLE)}", None))
        late = now() - timedelta(days=chance.choice((3, 4))) if chance.random() < 0.05 else None
        props = {f"k{chance.randrange(20)}": chance.choice((1, "x", True, [1], {"a": 1})) for _ in range(4)}
        return Event(
            props, {"page": {"path": "/"}}, user_id=person, anonymous_id=f"a{chance.randrange(PEOPLE)}", ts=late
        )

    written = await put(database, project, [event() for _ in range(chance.randrange(1, EVENTS_MAX))])
    await asyncio.sleep(0.02)  # the others need some of the processor
    return written


async def export(database: Database, dsn: str, folder: Path, project: UUID, chance: random.Random) -> int:
    return await exporter_of(dsn, database, folder).export(project, chance.randrange(1, 3 * EVENTS_MAX))


async def merge(database: Database, dsn: str, folder: Path, project: UUID, chance: random.Random) -> int:
    compact.SEGMENTS_MIN, compact.SPLIT_ROWS_MIN = 3, 50
    return await Compactor(SegmentStore(database), folder, now).compact(project)


async def erase(database: Database, dsn: str, folder: Path, project: UUID, chance: random.Random) -> int:
    store = SegmentStore(database)
    eraser = Eraser(store, UpkeepStore(database), folder)
    await eraser.finish(project)
    # An erasure sends those back who export meanwhile: some must come through.
    exported = (await store.mark(project)).exported
    while (await store.mark(project)).exported == exported:  # noqa: ASYNC110 - another process moves it
        await asyncio.sleep(chance.uniform(0, 0.1))
    person = chance.randrange(PEOPLE)
    field, value = chance.choice((("user_id", f"u{person}"), ("anonymous_id", f"a{person}")))
    return await eraser.erase(project, cast("IdentityField", field), value)


# Two that export, as two hosts would.
ROLES: tuple[Role, ...] = (write, export, export, merge, erase)


def run(role: Role, dsn: str, folder: Path, project: UUID, seed: int, rounds: Any) -> None:
    """Do the work of a role again and again, until killed; `rounds` counts when something was done."""

    async def forever() -> None:
        chance = random.Random(seed)
        async with opened(Database(settings_for(dsn))) as database:
            while (parent := multiprocessing.parent_process()) and parent.is_alive():
                with suppress(*EXPECTED):
                    rounds.value += bool(await role(database, dsn, folder, project, chance))

    asyncio.run(forever())


@dataclass(frozen=True)
class Worker:
    """A process at work."""

    role: Role
    process: Any
    rounds: Any


@cache
def forkserver() -> Any:
    """What starts processes that have imported everything already."""
    before = os.environ.get("PYTHONPATH")
    # The server is started with it, and Python 3.11 does not tell it our sys.path in another way.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


@dataclass
class Crashes:
    """The report: kills, checks, and what was wrong."""

    dsn: str
    database: Database
    folder: Path
    project: UUID
    kills: int = 0
    checks: int = 0
    written: int = 0
    erased: int = 0
    segments_made: int = 0
    segments_left: int = 0
    wrong: list[str] = field(default_factory=list)

    async def run(self, seconds: float, kills: int) -> None:
        """Kill at least so many for at least so long, then look at everything at rest."""
        workers = [self._start(role) for role in ROLES]
        checking = asyncio.create_task(self._check_forever())
        try:
            # Otherwise those might be killed who have not come to write anything yet.
            while len(await UpkeepStore(self.database).known(self.project) or ()) < 4:  # noqa: ASYNC110 - others write
                await asyncio.sleep(0.02)
            until = asyncio.get_running_loop().time() + seconds
            while self.kills < kills or asyncio.get_running_loop().time() < until:
                await asyncio.sleep(random.uniform(0, PAUSE_SECONDS_MAX))
                at_work = [worker for worker in workers if worker.rounds.value]
                # Mostly in the middle of their work: what has just been started needs some time to come to it.
                victim = random.choice(at_work if at_work and random.random() < 0.9 else workers)
                await self._kill(victim)
                workers[workers.index(victim)] = self._start(victim.role)
        finally:
            checking.cancel()
            await asyncio.wait([checking])
            for worker in workers:
                worker.process.kill()
                await asyncio.to_thread(worker.process.join)
        if not checking.cancelled():
            checking.result()
        await self._check_at_rest()

    def _start(self, role: Role) -> Worker:
        forks = forkserver()
        rounds = forks.Value("i", 0, lock=False)
        arguments = (role, self.dsn, self.folder, self.project, random.randrange(1 << 32), rounds)
        process = forks.Process(target=run, args=arguments, daemon=True)
        process.start()
        return Worker(role, process, rounds)

    async def _kill(self, worker: Worker) -> None:
        if not worker.process.is_alive():
            self.wrong.append(f"{worker.role.__name__} ended by itself with {worker.process.exitcode}")
        worker.process.kill()
        await asyncio.to_thread(worker.process.join)
        self.kills += 1

    async def _check_forever(self) -> None:
        while True:
            await self._check()
            self.checks += 1

    async def _check(self) -> None:
        """Compare the number and the sum of positions in one state of log and manifest."""
        async with self.database.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            snapshot = await SegmentStore(_Within(connection)).snapshot(self.project)
            kept = " AND ".join(["TRUE", *(erasure.kept for erasure in snapshot.erasures)])
            count = f"SELECT count(*), coalesce(sum(seq), 0)::bigint FROM events WHERE project_id = %s AND {kept}"
            values = (self.project, snapshot.log_end)
            log = await (await connection.execute(f"{count} AND seq <= %s", values)).fetchone()  # type: ignore[arg-type]
            tail = await (
                await connection.execute(f"{count} AND seq <= %s AND seq > %s", (*values, snapshot.exported))  # type: ignore[arg-type]
            ).fetchone()
        files = paths_of(self.folder, self.project, snapshot.segments)
        in_files = await asyncio.to_thread(_counted, files, kept) if files else (0, 0)
        assert log is not None
        assert tail is not None
        if (in_files[0] + tail[0], in_files[1] + tail[1]) != tuple(log):
            self.wrong.append(f"at {snapshot.log_end}: {in_files} in segments, {tail} behind them, {log} in the log")

    async def _check_at_rest(self) -> None:
        store, upkeep = SegmentStore(self.database), UpkeepStore(self.database)
        await Eraser(store, upkeep, self.folder).finish(self.project)
        while await exporter_of(self.dsn, self.database, self.folder).export(self.project):
            pass
        segments = (await store.snapshot(self.project)).segments
        log = await log_rows(self.database, self.project)
        self.written, self.segments_left = (await store.snapshot(self.project)).log_end, len(segments)
        self.erased = self.written - len(log)
        self.segments_made = len(await upkeep.known(self.project) or ())
        if file_rows(self.folder, self.project, segments) != log:
            self.wrong.append("at rest segments and log differ")
        async with self.database.transaction() as connection:
            await connection.execute("UPDATE segments SET retired_at = '-infinity' WHERE retired_at IS NOT NULL")
        cleanup.ORPHANED_SECONDS = -1
        await Cleaner(upkeep, self.folder, now, None).clean()
        names = {str(segment_path(Path(), self.project, segment.id)) for segment in segments}
        if names != set(files_below(self.folder)):
            self.wrong.append("after clean-up there are other files than live segments")


def _counted(files: list[str], kept: str) -> tuple[int, int]:
    with duckdb.connect() as connection:
        query = (
            f"SELECT count(*), coalesce(sum(seq), 0)::BIGINT FROM read_parquet(?, union_by_name = true) WHERE {kept}"
        )
        return cast("tuple[int, int]", connection.execute(query, [files]).fetchall()[0])


class _Within(Database):
    """The transaction that is open already, as a database."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        yield self._connection
