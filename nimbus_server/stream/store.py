"""Reads logs in the order of positions.

Whoever appends holds the log until its commit, so a snapshot that shows position N shows all up to N.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import sql

from nimbus_server.errors import project_not_found
from nimbus_server.events.store import BY_INDEX
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import Connection
from nimbus_server.stream.event import StreamedEvent
from nimbus_server.stream.filter import EventFilter

# Positions that one statement goes through at most, however few of their events match.
WINDOW_POSITIONS = 20_000
# Of the JSON in a page, but for its last event: short JSON may be long once PostgreSQL has written out its numbers.
PAGE_CHARACTERS_MAX = 256 * 1024
EVENTS_ASKED_MIN = 20

# One snapshot for all statements, taken by the first. With one for each, PostgreSQL would choose the partitions to read
# before it takes the last of them: what came into a new partition just then would be missing, and yet be passed over.
ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
LAST_SEQ = "SELECT last_seq FROM streams WHERE project_id = %s"
LAST_SEQS = "SELECT project_id, last_seq FROM streams WHERE project_id = ANY(%s)"
# Those of the events before which there are less than so many characters of JSON, so always the first.
PAGE = sql.SQL("""
SELECT id, seq, ts, received_at, name, user_id, idempotency_key, props, anonymous_id, context FROM (
    SELECT *, sum(length(props) + length(context)) OVER (
        ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS before FROM (
        SELECT id, seq, ts, received_at, name, user_id, idempotency_key, props::text AS props,
            anonymous_id, context::text AS context
        FROM events WHERE project_id = %(project_id)s AND seq > %(after)s AND seq <= %(until)s {}
        ORDER BY seq LIMIT %(limit)s
    ) AS found
) AS measured WHERE before IS NULL OR before < %(size)s ORDER BY seq
""")
NEXT_EVENT = "SELECT seq, received_at FROM events WHERE project_id = %s AND seq > %s ORDER BY seq LIMIT 1"
FIRST_RECEIVED = "SELECT seq FROM events WHERE project_id = %s AND seq > %s AND received_at >= %s ORDER BY seq LIMIT 1"


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the log found: events by rising seq, and the position up to which there are no others.

    `more` says that it did not look as far as the log goes.
    """

    events: list[StreamedEvent]
    position: int
    more: bool

    def limit_behind(self, limit_max: int) -> int:
        """How many events to ask for next: of large ones PostgreSQL need not read more than a page takes."""
        return min(limit_max, max(2 * len(self.events), EVENTS_ASKED_MIN)) if self.more else limit_max


class LogReader:
    """Every method raises what Database.transaction does; those that name one project, PROJECT_NOT_FOUND too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_seq(self, project_id: UUID) -> int:
        """The last position of a log."""
        async with self._database.transaction() as connection:
            return await _last_seq(connection, project_id)

    async def last_seqs(self, project_ids: Collection[UUID]) -> dict[UUID, int]:
        """The last positions of those logs that are there."""
        async with self._database.transaction() as connection:
            return dict(await (await connection.execute(LAST_SEQS, (list(project_ids),))).fetchall())

    async def page(
        self, project_id: UUID, after: int, which: EventFilter, limit: int, window: int | None = None
    ) -> Found:
        """Up to `limit` events behind a position, and no more than about PAGE_CHARACTERS_MAX of their JSON.

        The position found moves on even where nothing matches: by `window` positions, or WINDOW_POSITIONS.
        """
        window = window or WINDOW_POSITIONS
        conditions = (
            (sql.SQL("AND name = ANY(%(names)s)"), which.names),
            (sql.SQL("AND user_id = %(user_id)s"), which.user_id is not None),
            (sql.SQL("AND props @> %(props)s::jsonb"), which.props_json),
            (sql.SQL("AND anonymous_id = %(anonymous_id)s"), which.anonymous_id is not None),
            (sql.SQL("AND context @> %(context)s::jsonb"), which.context_json),
        )
        query = PAGE.format(sql.SQL(" ").join([condition for condition, used in conditions if used]))
        values = {
            "project_id": project_id,
            "after": after,
            # Not for SQL to add up: small numbers arrive there as smallint, and so would their sum.
            "until": after + window,
            "size": PAGE_CHARACTERS_MAX,
            "limit": limit,
            "names": list(which.names),
            "user_id": which.user_id,
            "props": which.props_json.decode(),
            "anonymous_id": which.anonymous_id,
            "context": which.context_json.decode(),
        }
        async with self._database.transaction() as connection, connection.pipeline():
            await connection.execute(ONE_SNAPSHOT)
            # Before the page is planned, so that it reads every partition in which there is something by now.
            head = await connection.execute(LAST_SEQ, (project_id,))
            await connection.execute(BY_INDEX)
            page = await connection.execute(query, values, binary=True)
            row = await head.fetchone()
            events = [StreamedEvent._make(values) for values in await page.fetchall()]
            if row is None:
                raise project_not_found()
            last_seq = int(row[0])
            if len(events) == limit or sum(event.json_characters for event in events) >= PAGE_CHARACTERS_MAX:
                return Found(events, events[-1].seq, more=events[-1].seq < last_seq)
            reached = max(after, min(last_seq, after + window), events[-1].seq if events else 0)
            if not events and reached < last_seq:
                # What was dropped may have left a hole of any size.
                following = await (await connection.execute(NEXT_EVENT, (project_id, reached))).fetchone()
                reached = int(following[0]) - 1 if following else last_seq
            return Found(events, reached, more=reached < last_seq)

    async def position_before(self, project_id: UUID, since: datetime, earlier: datetime) -> int:
        """The position behind which everything lies that was received at or after `since`.

        Times of arrival rise with positions but for a little: up to the time from `earlier` to `since`.
        """
        async with self._database.transaction() as connection:
            await connection.execute(ONE_SNAPSHOT)
            low, high = 0, await _last_seq(connection, project_id)
            last = high
            await connection.execute(BY_INDEX)
            while low < high:
                middle = (low + high) // 2
                row = await (await connection.execute(NEXT_EVENT, (project_id, middle))).fetchone()
                if row is None or row[1] >= earlier:
                    high = middle
                else:
                    low = int(row[0])
            first = await (await connection.execute(FIRST_RECEIVED, (project_id, low, since))).fetchone()
            return int(first[0]) - 1 if first else last


async def _last_seq(connection: Connection, project_id: UUID) -> int:
    row = await (await connection.execute(LAST_SEQ, (project_id,))).fetchone()
    if row is None:
        raise project_not_found()
    return int(row[0])
