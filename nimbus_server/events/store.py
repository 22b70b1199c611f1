"""Reads events back from the log."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from psycopg import sql
from psycopg.rows import class_row

from nimbus_server.postgres.database import Database

COUNT_MAX = 10_000
# Of the JSON in a page.
PAGE_CHARACTERS_MAX = 16 * 1024 * 1024

# Until a new project is in its statistics, PostgreSQL takes it for nearly empty, and reads all of it for one page.
BY_INDEX = "SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)"

# JSON becomes text for the rows of the page alone, and not for those that are skipped. A page ends behind the first
# event with which it has `size` characters of JSON; one more tells that another page follows.
PAGE = sql.SQL("""
SELECT id, project_id, seq, name, ts, user_id, anonymous_id, idempotency_key, received_at, props_json, context_json
FROM (
    SELECT *, sum(length(props_json) + length(context_json)) OVER (
        ORDER BY ts DESC, id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING
    ) AS before
    FROM (
        SELECT *, props::text AS props_json, context::text AS context_json
        FROM (SELECT * FROM events WHERE {} ORDER BY ts DESC, id DESC LIMIT %(limit)s OFFSET %(offset)s) AS found
    ) AS written
) AS measured WHERE before IS NULL OR before < %(size)s ORDER BY ts DESC, id DESC
""")


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events of a project; None or empty means any. `since` is inclusive, `until` is not.

    `props_json` and `context_json` are JSON objects that props and context must contain.
    """

    project_id: UUID
    names: list[str]
    user_id: str | None
    since: datetime | None
    until: datetime | None
    props_json: bytes
    anonymous_id: str | None = None
    context_json: bytes = b""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event as it is stored; `props_json` and `context_json` are JSON text."""

    id: UUID
    project_id: UUID
    seq: int
    name: str
    ts: datetime
    user_id: str | None
    anonymous_id: str | None
    idempotency_key: str | None
    received_at: datetime
    props_json: str
    context_json: str

    @property
    def props(self) -> dict[str, Any]:
        """What is known about it, with numbers as doubles or integers."""
        props: dict[str, Any] = orjson.loads(self.props_json)
        return props

    @property
    def context(self) -> dict[str, Any]:
        """Where and with what it happened; numbers as in `props`."""
        context: dict[str, Any] = orjson.loads(self.context_json)
        return context

    @property
    def json_characters(self) -> int:
        """How many its props and its context have together."""
        return len(self.props_json) + len(self.context_json)


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
        self,
        which: EventFilter,
        limit: int,
        offset: int = 0,
        after: Cursor | None = None,
        characters_max: int = PAGE_CHARACTERS_MAX,
    ) -> list[LoggedEvent]:
        """Up to `limit` events, by falling (ts, id).

        Fewer where they are large: none but one more after those that have `characters_max` of JSON.
        """
        where, values = _where(which)
        if after:
            where += sql.SQL(" AND (ts, id) < (%(after_ts)s, %(after_id)s)")
            values |= {"after_ts": after.ts, "after_id": after.id}
        async with (
            self._database.transaction() as connection,
            connection.pipeline(),
            connection.cursor(row_factory=class_row(LoggedEvent)) as cursor,
        ):
            await connection.execute(BY_INDEX)
            values |= {"limit": limit, "offset": offset, "size": characters_max}
            await cursor.execute(PAGE.format(where), values)
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
        "anonymous_id": (sql.SQL("anonymous_id = %(anonymous_id)s"), which.anonymous_id),
        "context": (sql.SQL("context @> %(context)s::jsonb"), which.context_json.decode() or None),
    }
    used = {name: pair for name, pair in conditions.items() if pair[1] is not None}
    return sql.SQL(" AND ").join([c for c, _ in used.values()]), {name: value for name, (_, value) in used.items()}
