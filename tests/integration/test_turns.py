"""A project whose log is locked makes its own callers wait, and nobody else's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
import pytest
from storage import log_of, new_event, new_project, opened, origin_of, running_ingest, settings_for

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.commit import Append
from nimbus_server.ingest.decode import Batch
from nimbus_server.ingest.pipeline import LANES_MAX, Ingest
from nimbus_server.ingest.receipt import Receipt
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions

LOCKED = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE application_name = 'nimbus' AND datname = current_database() AND wait_event_type = 'Lock'"
)


async def send(ingest: Ingest, project: UUID, count: int = 1) -> Receipt:
    return await ingest.store(
        project, Batch([new_event()._replace(place=place) for place in range(count)], []), origin_of()
    )


@asynccontextmanager
async def held(dsn: str, projects: list[UUID]) -> AsyncIterator[None]:
    """Somebody else holds the logs of these projects."""
    async with await psycopg.AsyncConnection.connect(dsn) as blocker:
        await blocker.execute("SELECT FROM streams WHERE project_id = ANY(%s) FOR UPDATE", (projects,))
        yield
        await blocker.rollback()


async def now_waiting(dsn: str) -> int:
    """How many connections of the worker wait for locks."""
    async with await psycopg.AsyncConnection.connect(dsn) as watcher:
        row = await (await watcher.execute(LOCKED)).fetchone()
        return row[0] if row else 0


async def until_waiting(dsn: str, connections: int) -> None:
    """Until so many connections of the worker wait for locks."""
    async with asyncio.timeout(30):
        while await now_waiting(dsn) != connections:
            pass


async def test_a_held_lock_leaves_other_projects_their_connections(dsn: str) -> None:
    small = settings_for(dsn).model_copy(update={"db_pool_size": 2, "db_max_overflow": 0})
    async with opened(Database(small)) as database, running_ingest(database) as ingest:
        busy, other = await new_project(database), await new_project(database)
        assert (await send(ingest, other)).accepted == 1
        async with held(dsn, [busy]):
            waiting = [asyncio.create_task(send(ingest, busy, 3)) for _ in range(40)]
            await until_waiting(dsn, 1)
            for _ in range(20):
                assert (await send(ingest, other)).accepted == 1
            await until_waiting(dsn, 1)
            assert not any(task.done() for task in waiting)
        assert [receipt.accepted for receipt in await asyncio.gather(*waiting)] == [3] * 40
        assert [event.seq for event in await log_of(database, busy)] == list(range(1, 121))


async def test_more_held_locks_than_may_be_waited_for_delay_no_other_project(dsn: str) -> None:
    async with opened(Database(settings_for(dsn))) as database, running_ingest(database) as ingest:
        busy, other = [await new_project(database) for _ in range(2 * LANES_MAX)], await new_project(database)
        assert (await send(ingest, other)).accepted == 1
        async with held(dsn, busy):
            waiting = [asyncio.create_task(send(ingest, project)) for project in busy]
            await until_waiting(dsn, LANES_MAX)
            assert (await send(ingest, other)).accepted == 1
            assert await now_waiting(dsn) <= LANES_MAX
            assert not any(task.done() for task in waiting)
        assert [list(receipt.stored.values()) for receipt in await asyncio.gather(*waiting)] == [[1]] * len(busy)


async def test_events_of_a_project_stay_in_the_order_in_which_they_were_submitted(dsn: str) -> None:
    async with opened(Database(settings_for(dsn))) as database, running_ingest(database) as ingest:
        project = await new_project(database)
        assert (await send(ingest, project)).accepted == 1
        async with held(dsn, [project]):
            before = [await ingest.submit(project, Batch([new_event()], []), origin_of()) for _ in range(5)]
            await until_waiting(dsn, 1)
            after = [await ingest.submit(project, Batch([new_event()], []), origin_of()) for _ in range(5)]
        receipts = [await ingest.receipt(one) for one in before + after]
        assert [list(receipt.stored.values()) for receipt in receipts] == [[seq] for seq in range(2, 12)]


async def test_what_comes_while_a_log_is_held_goes_into_the_commit_that_waits_for_it(dsn: str) -> None:
    async with opened(Database(settings_for(dsn))) as database, running_ingest(database) as ingest:
        project = await new_project(database)
        assert (await send(ingest, project)).accepted == 1
        async with held(dsn, [project]):
            waiting = [asyncio.create_task(send(ingest, project))]
            await until_waiting(dsn, 1)
            waiting += [asyncio.create_task(send(ingest, project)) for _ in range(9)]
            await asyncio.sleep(0)
        assert [list(receipt.stored.values()) for receipt in await asyncio.gather(*waiting)] == [
            [n] for n in range(2, 12)
        ]
        async with database.transaction() as connection:
            query = "SELECT count(DISTINCT xmin::text) FROM events WHERE project_id = %s AND seq > 1"
            assert await (await connection.execute(query, (project,))).fetchone() == (1,)


async def test_a_key_that_ends_while_a_log_is_waited_for_stores_nothing_that_came_later(dsn: str) -> None:
    async with opened(Database(settings_for(dsn))) as database:
        project, log = await new_project(database), EventLog(database, Partitions(database))
        await log.make_partitions([new_event()])
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            query = "UPDATE api_keys SET expires_at = now() + interval '0.3 s' WHERE project_id = %s RETURNING id"
            async with held(dsn, [project]):
                row = await (await connection.execute(query, (project,))).fetchone()
                assert row
                late = Append(project, row[0], [new_event()], 0)
                committing = asyncio.create_task(log.commit([project], lambda _: [late]))
                await until_waiting(dsn, 1)
                await connection.execute("SELECT pg_sleep(0.4)")
        outcome = (await committing)[late]
        assert isinstance(outcome, NimbusError)
        assert outcome.reason is Reason.API_KEY_UNKNOWN


async def test_a_defect_before_anything_is_taken_is_told_to_those_who_wait(dsn: str) -> None:
    async with opened(Database(settings_for(dsn))) as database, running_ingest(database) as ingest:
        project = await new_project(database)
        assert (await send(ingest, project)).accepted == 1
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute("ALTER TABLE streams RENAME TO aside")
            with pytest.raises(psycopg.errors.UndefinedTable):
                await send(ingest, project)
            await connection.execute("ALTER TABLE aside RENAME TO streams")
        assert (await send(ingest, project)).accepted == 1
