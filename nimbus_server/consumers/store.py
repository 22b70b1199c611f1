"""Consumers in PostgreSQL: how far each one is, and who has its stream."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from nimbus_server.errors import NimbusError, Reason, consumer_not_found, field_error, position_ahead, project_not_found
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import Connection

# A holder that is not heard of for so long is gone: its worker died, or lost the database.
HOLD_SECONDS = 10
LIST_MAX = 1000
LAGS_MAX = 10_000

INSERT = """
INSERT INTO consumers (project_id, name, position) SELECT %(project_id)s, %(name)s, %(position)s
WHERE (SELECT count(*) FROM consumers WHERE project_id = %(project_id)s) < %(most)s
ON CONFLICT (project_id, name) DO NOTHING
"""
HOLD = """
UPDATE consumers SET holder = %(holder)s, held_until = now() + make_interval(secs => %(seconds)s)
WHERE project_id = %(project_id)s AND name = %(name)s
  AND (%(take_over)s OR holder IS NULL OR held_until < now())
RETURNING position
"""
RENEW = """
UPDATE consumers c SET held_until = now() + make_interval(secs => %(seconds)s)
FROM unnest(%(projects)s::uuid[], %(holders)s::uuid[]) AS h (project_id, holder)
WHERE c.project_id = h.project_id AND c.holder = h.holder
RETURNING c.holder
"""
RELEASE = "UPDATE consumers SET holder = NULL WHERE project_id = %s AND holder = %s"
ACK = """
UPDATE consumers SET position = %(position)s, acked_at = now()
WHERE project_id = %(project_id)s AND name = %(name)s
  AND (position < %(position)s OR (position > %(position)s AND %(rewind)s))
"""
SELECT = """
SELECT c.name, c.position, greatest(s.last_seq - c.position, 0) AS lag,
       c.holder IS NOT NULL AND c.held_until >= now() AS active, c.acked_at
FROM consumers c JOIN streams s ON s.project_id = c.project_id
WHERE c.project_id = %(project_id)s
"""
LAGS = """
SELECT c.project_id, c.name, greatest(s.last_seq - c.position, 0) AS events,
       c.holder IS NOT NULL AND c.held_until >= now() AS active
FROM consumers c JOIN streams s ON s.project_id = c.project_id ORDER BY c.project_id, c.name LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer as its project sees it; `lag` counts the events behind its position."""

    name: str
    position: int
    lag: int
    active: bool
    acked_at: datetime


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a project's consumer is behind."""

    project_id: UUID
    name: str
    events: int
    active: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """One stream's hold on a consumer; `id` is the stream's own."""

    id: UUID
    project_id: UUID
    name: str


class ConsumerStore:
    """Every method raises what Database.transaction does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def position(self, project_id: UUID, name: str) -> int | None:
        """How far the consumer is; None where there is none."""
        async with self._database.transaction() as connection:
            row = await (
                await connection.execute(
                    "SELECT position FROM consumers WHERE project_id = %s AND name = %s", (project_id, name)
                )
            ).fetchone()
            return int(row[0]) if row else None

    async def hold(self, hold: Hold, position: int, *, take_over: bool) -> int:
        """Take the consumer, made at `position` where it is new, and say how far it is.

        Raises NimbusError with CONSUMER_BUSY where somebody else holds it, unless they are to be taken over from,
        FIELD_INVALID where it is new and there are LIST_MAX others, and PROJECT_NOT_FOUND.
        """
        which = {"project_id": hold.project_id, "name": hold.name, "position": position, "most": LIST_MAX}
        async with self._database.transaction() as connection:
            try:
                await connection.execute(INSERT, which)
            except psycopg.errors.ForeignKeyViolation:
                raise project_not_found() from None
            values = which | {"holder": hold.id, "seconds": HOLD_SECONDS, "take_over": take_over}
            row = await (await connection.execute(HOLD, values)).fetchone()
            if row is None and not await _exists(connection, hold):
                raise field_error(
                    Reason.FIELD_INVALID,
                    "consumer",
                    f"consumer is new, and the project has {LIST_MAX} already: delete those that nobody uses.",
                )
            if row is None:
                raise NimbusError(
                    Reason.CONSUMER_BUSY,
                    f"The consumer {hold.name} has a stream open. Wait until it ends, or open yours with "
                    "consumer_conflict to take it over.",
                    retry_after_seconds=1.0,
                )
            return int(row[0])

    async def renew(self, holds: Collection[Hold]) -> set[UUID]:
        """Renew holds, and say which of them still are."""
        values = {"projects": [h.project_id for h in holds], "holders": [h.id for h in holds], "seconds": HOLD_SECONDS}
        async with self._database.transaction() as connection:
            return {holder for (holder,) in await (await connection.execute(RENEW, values)).fetchall()}

    async def release(self, hold: Hold) -> None:
        """Let the consumer go; nothing happens where somebody else has it by now."""
        async with self._database.transaction() as connection:
            await connection.execute(RELEASE, (hold.project_id, hold.id))

    async def ack(self, project_id: UUID, name: str, position: int, *, rewind: bool) -> Consumer:
        """Move a consumer, forward only unless it is to `rewind`.

        Raises NimbusError with CONSUMER_NOT_FOUND, or POSITION_AHEAD where the log is not that long.
        """
        which = {"project_id": project_id, "name": name, "position": position, "rewind": rewind}
        async with self._database.transaction() as connection:
            await connection.execute(ACK, which)
            consumer = await _consumer(connection, project_id, name)
            row = await (
                await connection.execute("SELECT last_seq FROM streams WHERE project_id = %s", (project_id,))
            ).fetchone()
            if row and position > row[0]:
                raise position_ahead(position, row[0])
            return consumer

    async def of_project(self, project_id: UUID) -> list[Consumer]:
        """A project's consumers by name, the first LIST_MAX of them."""
        async with (
            self._database.transaction() as connection,
            connection.cursor(row_factory=class_row(Consumer)) as cursor,
        ):
            await cursor.execute(f'{SELECT} ORDER BY c.name COLLATE "C" LIMIT {LIST_MAX}', {"project_id": project_id})
            return await cursor.fetchall()

    async def lags(self) -> list[Lag]:
        """Those of all projects' consumers, the first LAGS_MAX of them."""
        async with (
            self._database.transaction() as connection,
            connection.cursor(row_factory=class_row(Lag)) as cursor,
        ):
            await cursor.execute(LAGS, (LAGS_MAX,))
            return await cursor.fetchall()

    async def delete(self, project_id: UUID, name: str) -> None:
        """Forget a consumer. Raises NimbusError with CONSUMER_NOT_FOUND."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "DELETE FROM consumers WHERE project_id = %s AND name = %s", (project_id, name)
            )
            if not cursor.rowcount:
                raise consumer_not_found(name)


async def _exists(connection: Connection, hold: Hold) -> bool:
    query = "SELECT 1 FROM consumers WHERE project_id = %s AND name = %s"
    return await (await connection.execute(query, (hold.project_id, hold.name))).fetchone() is not None


async def _consumer(connection: Connection, project_id: UUID, name: str) -> Consumer:
    async with connection.cursor(row_factory=class_row(Consumer)) as cursor:
        await cursor.execute(f"{SELECT} AND c.name = %(name)s", {"project_id": project_id, "name": name})
        consumer = await cursor.fetchone()
    if consumer is None:
        raise consumer_not_found(name)
    return consumer
