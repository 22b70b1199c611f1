"""Appends events to a project's log in PostgreSQL."""

from asyncio import Semaphore
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID
from weakref import WeakValueDictionary

from nimbus_server.errors import project_not_found
from nimbus_server.ingest.event import NewEvent
from nimbus_server.postgres.database import Connection, Database
from nimbus_server.postgres.partitions import Partitions, month_of

# Locked first and held to the end: positions are given out in the order of commits.
LOCK_STREAM = "SELECT last_seq FROM streams WHERE project_id = %s FOR UPDATE"
ADVANCE_STREAM = "UPDATE streams SET last_seq = last_seq + %s WHERE project_id = %s"

REMEMBER_KEYS = """
INSERT INTO event_keys (project_id, id, ts)
SELECT %(project_id)s, id, min(ts) FROM unnest(%(ids)s::uuid[], %(tss)s::timestamptz[]) AS k (id, ts) GROUP BY id
ON CONFLICT (project_id, id) DO NOTHING
"""
RECALL_KEYS = "SELECT id, ts FROM event_keys WHERE project_id = %(project_id)s AND id = ANY(%(ids)s)"

# The look at what is stored already is a scalar subquery on purpose: a join might read the whole log instead of
# probing its primary key. The bounds on ts leave the partitions aside that the batch does not touch. Nobody else
# appends to this project meanwhile, so what is not there stays so.
APPEND = """
WITH incoming AS (
    SELECT DISTINCT ON (ts, id) *
    FROM unnest(%(tss)s::timestamptz[], %(ids)s::uuid[], %(names)s::text[], %(user_ids)s::text[], %(keys)s::text[],
                %(props)s::text[]) WITH ORDINALITY AS i (ts, id, name, user_id, idempotency_key, props, ord)
    ORDER BY ts, id, ord
), fresh AS (
    SELECT i.*, row_number() OVER (ORDER BY ord) AS n
    FROM incoming i
    WHERE (SELECT true FROM events e WHERE e.project_id = %(project_id)s AND e.ts = i.ts AND e.id = i.id
                             AND e.ts BETWEEN %(first_ts)s AND %(last_ts)s) IS NULL
), stored AS (
    INSERT INTO events (project_id, ts, id, seq, received_at, name, user_id, idempotency_key, props)
    SELECT %(project_id)s, ts, id, %(last_seq)s + n, %(received_at)s, name, user_id, idempotency_key, props::jsonb
    FROM fresh
    RETURNING ts, name
), counted AS (
    INSERT INTO event_counts AS c (project_id, minute, name, count)
    SELECT %(project_id)s, date_trunc('minute', ts), name, count(*) FROM stored GROUP BY 2, 3
    ON CONFLICT (project_id, minute, name) DO UPDATE SET count = c.count + excluded.count
)
SELECT count(*) FROM stored
"""


# More would only wait for the project's lock, each with a connection that another project could use.
APPENDS_AT_ONCE = 2


class EventLog:
    """The writing end of the log. Raises what Database.transaction does; then nothing is stored."""

    def __init__(self, database: Database, partitions: Partitions) -> None:
        self._database = database
        self._partitions = partitions
        # By project, while someone appends to it.
        self._turns: WeakValueDictionary[UUID, Semaphore] = WeakValueDictionary()

    async def append(self, project_id: UUID, events: Sequence[NewEvent], received_at: datetime) -> int:
        """Store the events that are not stored yet and return how many those were; durable on return.

        Raises NimbusError with PROJECT_NOT_FOUND where the project was deleted.
        """
        if not events:
            return 0
        await self._partitions.ensure({month_of(event.ts) for event in events})
        turn = self._turns.setdefault(project_id, Semaphore(APPENDS_AT_ONCE))
        async with turn, self._database.transaction() as connection:
            row = await (await connection.execute(LOCK_STREAM, (project_id,))).fetchone()
            if row is None:
                raise project_not_found()
            events = await _settle_keys(connection, project_id, events)
            cursor = await connection.execute(
                APPEND,
                {
                    "project_id": project_id,
                    "last_seq": row[0],
                    "received_at": received_at,
                    "first_ts": min(e.ts for e in events),
                    "last_ts": max(e.ts for e in events),
                    "tss": [e.ts for e in events],
                    "ids": [e.id for e in events],
                    "names": [e.name for e in events],
                    "user_ids": [e.user_id for e in events],
                    "keys": [e.idempotency_key for e in events],
                    "props": [e.props.decode() for e in events],
                },
            )
            stored = await cursor.fetchone()
            accepted = int(stored[0]) if stored else 0
            if accepted:
                await connection.execute(ADVANCE_STREAM, (accepted, project_id))
            return accepted


async def _settle_keys(connection: Connection, project_id: UUID, events: Sequence[NewEvent]) -> Sequence[NewEvent]:
    """Give events with a key but no ts of their own the ts with which their key came first."""
    floating = [e for e in events if e.ts_is_default and e.idempotency_key is not None]
    if not floating:
        return events
    keys = {"project_id": project_id, "ids": [e.id for e in floating], "tss": [e.ts for e in floating]}
    await connection.execute(REMEMBER_KEYS, keys)
    first_ts: dict[UUID, datetime] = dict(await (await connection.execute(RECALL_KEYS, keys)).fetchall())
    return [replace(e, ts=first_ts[e.id]) if e.ts_is_default and e.idempotency_key is not None else e for e in events]
