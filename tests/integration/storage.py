"""What tests of storage share: a pool over the test's database, people and projects in it, and looks at its log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID, uuid4

from psycopg import sql
from psycopg.rows import class_row

from nimbus_server.accounts.api_keys import new_api_key
from nimbus_server.accounts.store import AccountStore
from nimbus_server.events.store import EventFilter, LoggedEvent
from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.projects.store import ProjectStore
from nimbus_server.settings import Settings, load

NOW = datetime(2025, 11, 1, 12, 0, tzinfo=UTC)

AnyDatabase = TypeVar("AnyDatabase", bound=Database)


def settings_for(dsn: str) -> Settings:
    """Settings of a server over this database."""
    return load(environment="test", database_url=dsn)


@asynccontextmanager
async def opened(database: AnyDatabase) -> AsyncIterator[AnyDatabase]:
    """The pool, open for as long as it is used."""
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def running_ingest(database: Database, partitions: Partitions | None = None) -> AsyncIterator[Ingest]:
    """The way in of one worker, with its writer at work."""
    ingest = Ingest(EventLog(database, partitions or Partitions(database)))
    writer = asyncio.create_task(ingest.run())
    try:
        yield ingest
    finally:
        writer.cancel()
        await asyncio.wait([writer])


async def new_user(database: Database) -> UUID:
    """Someone registered."""
    user = uuid4()
    await AccountStore(database).add_user(user, f"{user.hex}@example.com", "not a hash")
    return user


async def new_project(database: Database, owner: UUID | None = None) -> UUID:
    """A project of the owner's, or of someone new."""
    key = new_api_key()
    owner = owner or await new_user(database)
    return (await ProjectStore(database).create(uuid4(), "a project", owner, key.id, b"sealed")).id


def all_of(project: UUID) -> EventFilter:
    """The filter that lets every event of a project through."""
    return EventFilter(project, [], None, None, None, None)


async def log_of(database: Database, project: UUID) -> list[LoggedEvent]:
    """Every event that is stored for a project, by seq: read past EventReader, to check it against."""
    columns = sql.SQL("id, project_id, seq, name, ts, props, user_id, idempotency_key, received_at")
    query = sql.SQL("SELECT {} FROM events WHERE project_id = %s ORDER BY seq").format(columns)
    async with database.transaction() as connection, connection.cursor(row_factory=class_row(LoggedEvent)) as cursor:
        return await (await cursor.execute(query, (project,))).fetchall()


@dataclass(frozen=True)
class Count:
    """A row of event_counts."""

    minute: datetime
    name: str
    count: int


async def counts_of(database: Database, project: UUID) -> set[Count]:
    """What is counted for a project."""
    query = "SELECT minute, name, count FROM event_counts WHERE project_id = %s"
    async with database.transaction() as connection, connection.cursor(row_factory=class_row(Count)) as cursor:
        return set(await (await cursor.execute(query, (project,))).fetchall())
