"""The manifest in PostgreSQL, beside the log that it is about.

A question reads one Snapshot in one statement. Whoever publishes does so in one transaction that compares what was
read before: of two who did the same work, one gets a StaleError and drops its files.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.errors import ForeignKeyViolation
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from nimbus_server.errors import project_not_found
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import Connection
from nimbus_server.segments.manifest import Erasure, Mark, Segment, Snapshot

SNAPSHOT = """
SELECT coalesce(m.last_seq, 0), s.last_seq, now(),
    ARRAY(SELECT ARRAY[e.field, e.value, e.upto::text] FROM erasures e WHERE e.project_id = s.project_id),
    g.id, g.first_seq, g.last_seq, g.ts_min, g.ts_max, g.rows, g.bytes, g.columns
FROM streams s LEFT JOIN segment_marks m ON m.project_id = s.project_id
LEFT JOIN segments g ON g.project_id = s.project_id AND g.retired_at IS NULL
    AND g.ts_max >= coalesce(%(start)s, '-infinity'::timestamptz)
    AND g.ts_min < coalesce(%(end)s, 'infinity'::timestamptz)
WHERE s.project_id = %(project_id)s ORDER BY g.first_seq, g.id
"""
MARK = """
SELECT m.last_seq, s.last_seq, m.epoch FROM streams s LEFT JOIN segment_marks m ON m.project_id = s.project_id
WHERE s.project_id = %s
"""
ADD_MARK = "INSERT INTO segment_marks (project_id) VALUES (%s) ON CONFLICT (project_id) DO NOTHING"
LIVE = """
SELECT id, first_seq, last_seq, ts_min, ts_max, rows, bytes, columns FROM segments
WHERE project_id = %s AND retired_at IS NULL ORDER BY first_seq, id
"""
COUNT = "SELECT count(*) FROM events WHERE project_id = %s AND seq > %s AND seq <= %s"
ADVANCE = "UPDATE segment_marks SET last_seq = %s WHERE project_id = %s AND last_seq = %s AND epoch = %s"
HOLD_EPOCH = "SELECT 1 FROM segment_marks WHERE project_id = %s AND epoch = %s FOR SHARE"
RETIRE = "UPDATE segments SET retired_at = now() WHERE project_id = %s AND id = ANY(%s) AND retired_at IS NULL"
ADD = """
INSERT INTO segments (project_id, id, first_seq, last_seq, ts_min, ts_max, rows, bytes, columns)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
LAGS = """
SELECT s.project_id, s.last_seq - coalesce(m.last_seq, 0) FROM streams s LEFT JOIN segment_marks m USING (project_id)
WHERE s.last_seq > coalesce(m.last_seq, 0)
"""
STATUS = """
SELECT s.project_id, coalesce(m.last_seq, 0) AS exported, s.last_seq AS log_end, coalesce(g.files, 0) AS files,
    coalesce(g.rows, 0)::bigint AS rows, coalesce(g.bytes, 0)::bigint AS bytes
FROM streams s LEFT JOIN segment_marks m USING (project_id)
LEFT JOIN (
    SELECT project_id, count(*) AS files, sum(rows) AS rows, sum(bytes) AS bytes FROM segments
    WHERE retired_at IS NULL GROUP BY project_id
) AS g USING (project_id)
WHERE s.last_seq > 0 ORDER BY s.last_seq DESC, s.project_id LIMIT %s
"""
# Of as many projects Prometheus is told, as of consumers.
STATUS_MAX = 10_000


class StaleError(Exception):
    """What was to be published was read from a state of the log or the manifest that no longer holds."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far the segments of a project are. `bytes` are those of live files."""

    project_id: UUID
    exported: int
    log_end: int
    files: int
    rows: int
    bytes: int

    @property
    def lag(self) -> int:
        """Positions that are not in segments yet."""
        return self.log_end - self.exported


class SegmentStore:
    """Every method raises what Database.transaction does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def snapshot(self, project_id: UUID, start: datetime | None = None, end: datetime | None = None) -> Snapshot:
        """One state of a log, with the segments that overlap the time from `start` to `end` (exclusive).

        Raises PROJECT_NOT_FOUND.
        """
        values = {"project_id": project_id, "start": start, "end": end}
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SNAPSHOT, values)).fetchall()
        if not rows:
            raise project_not_found()
        exported, log_end, at, erasures = rows[0][:4]
        return Snapshot(
            exported,
            log_end,
            tuple(Segment(*row[4:]) for row in rows if row[4] is not None),
            tuple(Erasure(field, value, int(upto)) for field, value, upto in erasures),
            at,
        )

    async def mark(self, project_id: UUID) -> Mark:
        """Where an export begins. Raises PROJECT_NOT_FOUND."""
        try:
            async with self._database.transaction() as connection:
                row = await (await connection.execute(MARK, (project_id,))).fetchone()
                if row is not None and row[0] is None:
                    await connection.execute(ADD_MARK, (project_id,))
                    row = await (await connection.execute(MARK, (project_id,))).fetchone()
        except ForeignKeyViolation:
            row = None
        if row is None:
            raise project_not_found()
        return Mark(*row)

    async def live(self, project_id: UUID) -> tuple[int, list[Segment]]:
        """The epoch, and the live segments at it or later."""
        async with self._database.transaction() as connection:
            row = await (await connection.execute(MARK, (project_id,))).fetchone()
            segments = await (await connection.execute(LIVE, (project_id,))).fetchall()
        return (row[2] or 0 if row else 0), [Segment(*segment) for segment in segments]

    async def publish(self, project_id: UUID, mark: Mark, upto: int, segments: Sequence[Segment]) -> None:
        """Make new segments count: they hold what the log has behind mark.exported, up to position `upto`.

        Raises StaleError where somebody else published, or events were erased meanwhile, or where the log has more
        events there than the segments.
        """
        rows, positions = sum(segment.rows for segment in segments), upto - mark.exported
        async with self._database.transaction() as connection:
            # A statement reads the partitions that its session knew when it was planned. Where positions are missing,
            # another session counts: retention and erasure leave holes, an overlooked partition must not.
            if rows < positions:
                row = await (await connection.execute(COUNT, (project_id, mark.exported, upto))).fetchone()
                if row is None or row[0] > rows:
                    raise StaleError("The log has more events than were read.")
            values = (upto, project_id, mark.exported, mark.epoch)
            if (await connection.execute(ADVANCE, values)).rowcount != 1:
                raise StaleError("Somebody else has published these positions, or events were erased meanwhile.")
            await _add(connection, project_id, segments)

    async def replace(
        self, project_id: UUID, epoch: int, old: Collection[Segment], segments: Sequence[Segment]
    ) -> None:
        """Let new segments take the place of live ones, which are retired.

        `epoch` is that at which the old ones were live, as from `live`. Raises StaleError where events were erased
        since, or some of the old ones are live no longer.
        """
        ids = [segment.id for segment in old]
        async with self._database.transaction() as connection:
            if (await connection.execute(HOLD_EPOCH, (project_id, epoch))).rowcount != 1:
                raise StaleError("Events were erased meanwhile.")
            if (await connection.execute(RETIRE, (project_id, ids))).rowcount != len(ids):
                raise StaleError("Somebody else has replaced these segments.")
            await _add(connection, project_id, segments)

    async def lags(self) -> dict[UUID, int]:
        """How many positions each project has that are not in segments yet, where there are any."""
        async with self._database.transaction() as connection:
            return dict(await (await connection.execute(LAGS)).fetchall())

    async def status(self) -> list[Status]:
        """How far the segments of each project are, longest logs first, of STATUS_MAX projects at most."""
        async with (
            self._database.transaction() as connection,
            connection.cursor(row_factory=class_row(Status)) as cursor,
        ):
            return await (await cursor.execute(STATUS, (STATUS_MAX,))).fetchall()


async def _add(connection: Connection, project_id: UUID, segments: Sequence[Segment]) -> None:
    for new in segments:
        values = (project_id, new.id, new.first_seq, new.last_seq, new.ts_min, new.ts_max, new.rows, new.bytes)
        await connection.execute(ADD, (*values, Jsonb(new.columns)))
