"""A deleted project is gone at once, and what its log takes is freed, its own and no other's."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from psycopg import sql
from storage import (
    all_of,
    counts_of,
    log_of,
    new_project,
    new_user,
    opened,
    origin_of,
    running_ingest,
    settings_for,
)

from nimbus_server.accounts.caller import Person
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.events.store import EventReader
from nimbus_server.ingest.decode_json import decode_json
from nimbus_server.postgres.database import Database
from nimbus_server.projects import store as module
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.projects.store import ProjectStore

ORIGIN = origin_of("ab" * 32)
EVENTS = [{"name": "a", "idempotency_key": f"k{n}"} for n in range(5)] + [{"name": "b"}] * 4


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


async def fill(database: Database, project: UUID) -> None:
    async with running_ingest(database) as ingest:
        await ingest.store(project, decode_json(EVENTS, ORIGIN), ORIGIN, None)


async def rows(database: Database, project: UUID) -> dict[str, int]:
    """How many rows of each table name the project."""
    found = {}
    async with database.transaction() as connection:
        tables = await connection.execute(
            "SELECT relname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid "
            "WHERE attname = 'project_id' AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        for (table,) in await tables.fetchall():
            query = sql.SQL("SELECT count(*) FROM {} WHERE project_id = %s").format(sql.Identifier(table))
            row = await (await connection.execute(query, (project,))).fetchone()
            found[table] = row[0] if row else 0
    return {table: count for table, count in found.items() if count}


async def test_a_deleted_project_takes_and_shows_nothing_from_then_on(database: Database) -> None:
    owner = await new_user(database)
    project, store = await new_project(database, owner), ProjectStore(database)
    await fill(database, project)
    await store.delete(owner, project)

    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.PROJECT_NOT_FOUND):
        await fill(database, project)
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.PROJECT_NOT_FOUND):
        await ProjectAccess(store).require(Person(owner, owner, owner), project)
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.PROJECT_NOT_FOUND):
        await store.delete(owner, project)
    assert await store.page(owner, 10, None) == []


async def test_a_deleted_projects_rows_are_purged_in_steps_and_anothers_stay(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PURGE_STEP_EVENTS", 4)
    owner = await new_user(database)
    gone, stays, store = await new_project(database, owner), await new_project(database, owner), ProjectStore(database)
    for project in (gone, stays):
        await fill(database, project)
    before = await rows(database, stays)
    log, counts = await log_of(database, stays), await counts_of(database, stays)
    await store.delete(owner, gone)

    left = []
    while await store.purge_step():
        left.append(await EventReader(database).count(all_of(gone)))
    assert left == [5, 1, 0, 0]
    assert await rows(database, gone) == {}
    assert await rows(database, stays) == before
    assert (await log_of(database, stays), await counts_of(database, stays)) == (log, counts)
    assert len(log) == 9


async def test_nothing_is_purged_where_nothing_was_deleted(database: Database) -> None:
    project = await new_project(database)
    await fill(database, project)
    assert not await ProjectStore(database).purge_step()
    assert len(await log_of(database, project)) == 9


async def test_many_workers_may_purge_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PURGE_STEP_EVENTS", 2)
    owner, store = await new_user(database), ProjectStore(database)
    projects = [await new_project(database, owner) for _ in range(3)]
    for project in projects:
        await fill(database, project)
        await store.delete(owner, project)

    async def purge() -> None:
        while await store.purge_step():
            pass

    await asyncio.gather(*(purge() for _ in range(4)))
    await purge()
    assert [await rows(database, project) for project in projects] == [{}, {}, {}]


async def test_deleting_while_events_come_in_leaves_no_event_behind(database: Database) -> None:
    owner, store = await new_user(database), ProjectStore(database)
    for _ in range(5):
        project = await new_project(database, owner)
        results = await asyncio.gather(
            *(fill(database, project) for _ in range(3)), store.delete(owner, project), return_exceptions=True
        )
        errors = [result for result in results if result is not None]
        assert all(isinstance(e, NimbusError) and e.reason is Reason.PROJECT_NOT_FOUND for e in errors), errors
        while await store.purge_step():
            pass
        assert await rows(database, project) == {}
