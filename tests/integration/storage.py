"""What tests of storage share: a pool over the test's database, people and projects in it, and looks at its log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

import orjson
import psycopg
from psycopg import sql
from psycopg.rows import class_row

from nimbus_server.accounts.api_keys import new_api_key
from nimbus_server.accounts.store import AccountStore
from nimbus_server.clock import micros
from nimbus_server.events.store import EventFilter, LoggedEvent
from nimbus_server.ingest import identity
from nimbus_server.ingest.commit import Append, Stored
from nimbus_server.ingest.copy_rows import NULL, jsonb, text
from nimbus_server.ingest.decode import Origin
from nimbus_server.ingest.event import NewEvent
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


def new_event(
    ts: datetime = NOW,
    name: str = "n",
    user_id: str | None = None,
    props: Any = None,
    anonymous_id: str | None = None,
    context: Any = None,
) -> NewEvent:
    """A valid event that is the same as no other."""
    user, anonymous = (NULL if value is None else text(value.encode()) for value in (user_id, anonymous_id))
    objects = jsonb(orjson.dumps(context or {})) + jsonb(orjson.dumps(props or {}))
    texts = text(name.encode()) + user + NULL + anonymous + objects
    return NewEvent(0, identity.fresh(micros(NOW)) + bytes(2), micros(ts), False, name, texts)


def origin_of(signature: str | None = None, at: datetime = NOW, **others: Any) -> Origin:
    """Where a request comes from that arrives at this moment, signed at the same, or not signed."""
    prefix = identity.fresh(micros(at)) if signature is None else identity.signed(signature)
    return Origin(micros(at), micros(at), prefix, repeatable=signature is not None, **others)


async def append(log: EventLog, project: UUID, events: list[NewEvent], received_at: datetime = NOW) -> int:
    """Append events by nobody in particular, and return how many were stored."""
    await log.make_partitions(events)
    (stored,) = await log.append([Append(project, None, events, micros(received_at))])
    if not isinstance(stored, Stored):
        raise stored
    return len(stored.events)


async def at_commit(dsn: str, statements: str) -> None:
    """Let each transaction that appends run these PL/pgSQL statements last of all, within its commit."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        body = sql.Literal(f"BEGIN {statements} RETURN NULL; END")
        await connection.execute(
            sql.SQL("CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS {}").format(body)
        )
        await connection.execute(
            "CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON streams DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION at_commit()"
        )


def all_of(project: UUID) -> EventFilter:
    """The filter that lets every event of a project through."""
    return EventFilter(project, [], None, None, None, b"")


async def log_of(database: Database, project: UUID) -> list[LoggedEvent]:
    """Every event that is stored for a project, by seq: read past EventReader, to check it against."""
    columns = sql.SQL(
        "id, project_id, seq, name, ts, user_id, anonymous_id, idempotency_key, received_at, "
        "props::text AS props_json, context::text AS context_json"
    )
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
