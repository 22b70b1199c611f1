"""A project whose log is locked makes its own callers wait, and nobody else's."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import psycopg
from storage import NOW, new_project, opened, settings_for

from nimbus_server.ingest.event import NewEvent
from nimbus_server.ingest.store import APPENDS_AT_ONCE, EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions

EVENT = NewEvent(uuid4(), NOW, False, "n", None, None, b"{}")
LOCKED = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE application_name = 'nimbus' AND datname = current_database() AND wait_event_type = 'Lock'"
)


async def test_a_held_lock_leaves_other_projects_their_connections(dsn: str) -> None:
    small = settings_for(dsn).model_copy(update={"db_pool_size": 4, "db_max_overflow": 0})
    async with (
        opened(Database(small)) as database,
        await psycopg.AsyncConnection.connect(dsn) as blocker,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher,
    ):
        busy, other, log = (
            await new_project(database),
            await new_project(database),
            EventLog(database, Partitions(database)),
        )
        await log.append(other, [EVENT], NOW)
        await blocker.execute("SELECT FROM streams WHERE project_id = %s FOR UPDATE", (busy,))
        waiting = [
            asyncio.create_task(log.append(busy, [replace(EVENT, id=uuid4())], NOW)) for _ in range(4 * APPENDS_AT_ONCE)
        ]
        while await (await watcher.execute(LOCKED)).fetchone() != (APPENDS_AT_ONCE,):
            pass
        assert await log.append(other, [replace(EVENT, id=uuid4())], NOW) == 1
        assert not any(task.done() for task in waiting)
        await blocker.rollback()
        assert await asyncio.gather(*waiting) == [1] * len(waiting)
