"""Reads the counts that ingest keeps."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import sql

from nimbus_server.metrics.bucket import EPOCH, Bucket
from nimbus_server.postgres.database import Database

# Goes from one non-empty bucket to the next older one by the primary key, and stops at the limit: the cost follows the
# buckets shown, not the length of the log. Then it adds them up in one go.
NEWEST_BUCKETS = """
WITH RECURSIVE buckets AS (
    SELECT date_bin(%(width)s, max(minute), %(epoch)s) AS ts FROM event_counts WHERE {where}
    UNION ALL
    SELECT date_bin(%(width)s, (SELECT max(minute) FROM event_counts WHERE {where} AND minute < b.ts), %(epoch)s)
    FROM buckets b
    WHERE b.ts IS NOT NULL
), newest AS (
    SELECT ts FROM buckets WHERE ts IS NOT NULL LIMIT %(limit)s
)
SELECT date_bin(%(width)s, minute, %(epoch)s) AS ts, sum(count) FROM event_counts
WHERE {where} AND minute >= (SELECT min(ts) FROM newest) GROUP BY 1 ORDER BY 1
"""
# The planner does not know how few rows that is, and would rather read all that there are.
BY_INDEX = "SET LOCAL enable_seqscan = off"


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Which counts of a project; `start` inclusive and `end` not, both at the edge of a bucket, None for no bound."""

    project_id: UUID
    bucket: Bucket
    limit: int
    start: datetime | None
    end: datetime | None
    names: list[str]


@dataclass(frozen=True, slots=True)
class Point:
    """Number of events in the bucket that starts at `ts`."""

    ts: datetime
    count: int


class MetricsStore:
    """Every method raises what Database.transaction does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, query: SeriesQuery) -> list[Point]:
        """The newest non-empty buckets, oldest first."""
        conditions = [sql.SQL("project_id = %(project_id)s")]
        if query.start:
            conditions.append(sql.SQL("minute >= %(start)s"))
        if query.end:
            conditions.append(sql.SQL("minute < %(end)s"))
        if query.names:
            conditions.append(sql.SQL("name = ANY(%(names)s)"))
        async with self._database.transaction() as connection, connection.pipeline():
            await connection.execute(BY_INDEX)
            cursor = await connection.execute(
                sql.SQL(NEWEST_BUCKETS).format(where=sql.SQL(" AND ").join(conditions)),
                {
                    "project_id": query.project_id,
                    "width": query.bucket.width,
                    "epoch": EPOCH,
                    "start": query.start,
                    "end": query.end,
                    "names": query.names,
                    "limit": query.limit,
                },
            )
            return [Point(ts, int(count)) for ts, count in await cursor.fetchall()]
