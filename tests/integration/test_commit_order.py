"""A reader that has seen position N has seen everything up to N: the promise that every resumed reader rests on."""

import asyncio
import random
from uuid import UUID

from storage import append, at_commit, log_of, new_event, new_project, opened, settings_for

from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions

WRITERS = 8
BATCHES = 12


async def write(log: EventLog, project: UUID, sizes: list[int]) -> None:
    for size in sizes:
        assert await append(log, project, [new_event() for _ in range(size)]) == size


async def follow(database: Database, project: UUID, written: asyncio.Event) -> list[int]:
    """Positions as a reader sees them that asks for what is past its last one, until there is no more to come."""
    seen, more_to_come = [0], True
    while more_to_come:
        more_to_come = not written.is_set()
        async with database.transaction() as connection:
            found = await connection.execute(
                "SELECT seq FROM events WHERE project_id = %s AND seq > %s ORDER BY seq", (project, seen[-1])
            )
            seen += [seq for (seq,) in await found.fetchall()]
    return seen[1:]


async def test_a_reader_that_polls_past_its_position_never_misses_an_event(dsn: str) -> None:
    sizes = [[random.randint(1, 3) for _ in range(BATCHES)] for _ in range(WRITERS)]
    total, written = sum(map(sum, sizes)), asyncio.Event()
    # Each commit takes another while.
    await at_commit(dsn, "PERFORM pg_sleep(random() * 0.004);")
    async with opened(Database(settings_for(dsn))) as reading, opened(Database(settings_for(dsn))) as writing:
        mine, others = await new_project(reading), await new_project(reading)
        log = EventLog(writing, Partitions(writing))
        readers = [asyncio.create_task(follow(reading, mine, written)) for _ in range(3)]
        await asyncio.gather(*(write(log, project, batches) for batches in sizes for project in (mine, others)))
        written.set()
        assert await asyncio.gather(*readers) == [list(range(1, total + 1))] * 3
        assert [event.seq for event in await log_of(reading, others)] == list(range(1, total + 1))


async def test_writers_of_other_projects_do_not_wait_for_one_another(dsn: str) -> None:
    async with opened(Database(settings_for(dsn))) as database:
        held, free = await new_project(database), await new_project(database)
        log = EventLog(database, Partitions(database))
        async with database.transaction() as connection:
            await connection.execute("SELECT 1 FROM streams WHERE project_id = %s FOR UPDATE", (held,))
            async with asyncio.timeout(10):
                await write(log, free, [1])
        assert [event.seq for event in await log_of(database, free)] == [1]
