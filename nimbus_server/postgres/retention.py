"""Drops events that are older than they are to be kept, a month at a time. Counts stay."""

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from psycopg import sql

from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import ADVISORY_LOCK, FIRST_MONTH, Partitions, month_of

log = structlog.get_logger(__name__)

# To drop a partition locks out everyone else for a moment. Behind a long query that moment would be as long as it:
# rather try again a minute later.
LOCK_TIMEOUT = "1s"

MONTHS = """
SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'events'::regclass AND child.relname < %s AND child.relname <> 'events_before_2020'
ORDER BY child.relname
"""
# A key that points into a dropped month would bring its event back. So the keys go first.
FORGET_KEYS = """
WITH page AS MATERIALIZED (
    SELECT project_id, id, ts FROM event_keys WHERE (project_id, id) > (%(project_id)s, %(id)s)
    ORDER BY project_id, id LIMIT 10000
), gone AS (
    DELETE FROM event_keys k USING page p WHERE k.project_id = p.project_id AND k.id = p.id AND p.ts < %(before)s
)
SELECT project_id, id FROM page ORDER BY project_id DESC, id DESC LIMIT 1
"""


def kept_since(now: datetime, days: int) -> datetime:
    """The first moment of the oldest month that is kept: of what is older nothing may be shown any more."""
    return month_of(now - timedelta(days=days))


class Retention:
    """Keeps events for `days` and then to the end of their month."""

    def __init__(self, database: Database, partitions: Partitions, days: int) -> None:
        self._database = database
        self._partitions = partitions
        self._days = days

    async def enforce(self, now: datetime) -> None:
        """Drop the months that lie wholly in the past of what is kept. Raises what Database.transaction does."""
        before = kept_since(now, self._days)
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(MONTHS, (f"events_{before:%Y_%m}",))).fetchall()
            months = [name for (name,) in rows]
            row = await (await connection.execute("SELECT EXISTS (SELECT FROM events_before_2020)")).fetchone()
        old_history = before >= FIRST_MONTH and row == (True,)
        if not months and not old_history:
            return
        await self._forget_keys(before)
        for name in months:
            await self._run(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
        if old_history:
            await self._run(sql.SQL("TRUNCATE events_before_2020"))
        self._partitions.forget()
        log.info("dropped old events", before=before.isoformat(), partitions=months)

    async def _forget_keys(self, before: datetime) -> None:
        after: tuple[UUID, UUID] | None = (UUID(int=0), UUID(int=0))
        while after:
            async with self._database.transaction() as connection:
                values = {"project_id": after[0], "id": after[1], "before": before}
                after = await (await connection.execute(FORGET_KEYS, values)).fetchone()

    async def _run(self, statement: sql.SQL | sql.Composed) -> None:
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
            await connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
            await connection.execute(statement)
