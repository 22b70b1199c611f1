"""Reads events back from the log."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row

from nimbus_server.postgres.database import Database

COUNT_MAX = 10_000

# Until a new project is in its statistics, PostgreSQL takes it for nearly empty, and reads all of it for one page.
BY_INDEX = "SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)"

COLUMNS = sql.SQL("id, project_id, seq, name, ts, props, user_id, idempotency_key, received_at")


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events of a project; None or empty means any. `since` is inclusive, `until` is not.

    `props_json` is a JSON object that the props must contain.
    """

    project_id: UUID
    names: list[str]
    user_id: str | None
    since: datetime | None
    until: datetime | None
    props_json: bytes


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event as it is stored."""

    id: UUID
    project_id: UUID
    seq: int
    name: str
    ts: datetime
    props: dict[str, Any]
    user_id: str | None
    idempotency_key: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list: the (ts, id) of the last event seen."""

    ts: datetime
    id: UUID


class EventReader:
    """Every method raises what Database.transaction does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, which: EventFilter, limit: int, offset: int = 0, after: Cursor | None = None
    ) -> list[LoggedEvent]:
        """Up to `limit` events, by falling (ts, id)."""
        where, values = _where(which)
        if after:
            where += sql.SQL(" AND (ts, id) < (%(after_ts)s, %(after_id)s)")
            values |= {"after_ts": after.ts, "after_id": after.id}
        query = sql.SQL("SELECT {} FROM events WHERE {} ORDER BY ts DESC, id DESC LIMIT %(limit)s OFFSET %(offset)s")
        async with (
            self._database.transaction() as connection,
            connection.pipeline(),
            connection.cursor(row_factory=class_row(LoggedEvent)) as cursor,
        ):
            await connection.execute(BY_INDEX)
            await cursor.execute(query.format(COLUMNS, where), values | {"limit": limit, "offset": offset})
            return await cursor.fetchall()

    async def count(self, which: EventFilter) -> int:
        """Number of events, counted up to COUNT_MAX."""
        where, values = _where(which)
        query = sql.SQL("SELECT count(*) FROM (SELECT FROM events WHERE {} LIMIT %(most)s) AS found")
        async with self._database.transaction() as connection, connection.pipeline():
            await connection.execute(BY_INDEX)
            row = await (await connection.execute(query.format(where), values | {"most": COUNT_MAX})).fetchone()
            return int(row[0]) if row else 0


def _where(which: EventFilter) -> tuple[sql.Composed, dict[str, Any]]:
    conditions = {
        "project_id": (sql.SQL("project_id = %(project_id)s"), which.project_id),
        "names": (sql.SQL("name = ANY(%(names)s)"), which.names or None),
        "user_id": (sql.SQL("user_id = %(user_id)s"), which.user_id),
        "since": (sql.SQL("ts >= %(since)s"), which.since),
        "until": (sql.SQL("ts < %(until)s"), which.until),
        "props": (sql.SQL("props @> %(props)s::jsonb"), which.props_json.decode() or None),
    }
    used = {name: pair for name, pair in conditions.items() if pair[1] is not None}
    return sql.SQL(" AND ").join([c for c, _ in used.values()]), {name: value for name, (_, value) in used.items()}
