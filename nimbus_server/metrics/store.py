"""Reads the counts that ingest keeps."""

from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import Any
from uuid import UUID

from psycopg import sql

from nimbus_server.metrics.bucket import EPOCH, TICK, Bucket, CalendarBucket
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import Connection

NAMES_MAX = 100

# Goes from one non-empty bucket to the next older one by the primary key, and stops at the limit: the cost follows the
# buckets shown, not the length of the log. Then it adds them up in one go.
NEWEST_BUCKETS = """
WITH RECURSIVE buckets AS (
    SELECT {newest} AS ts FROM event_counts WHERE {where}
    UNION ALL
    SELECT {next_older} FROM buckets b WHERE b.ts IS NOT NULL
), newest AS (
    SELECT ts FROM buckets WHERE ts IS NOT NULL LIMIT %(limit)s
)
"""
TOTALS_OF_FIXED = """
SELECT {start} AS ts, NULL AS name, sum(count) FROM event_counts
WHERE {where} AND minute >= (SELECT min(ts) FROM newest) GROUP BY 1 ORDER BY 1
"""
TOTALS = """
SELECT ts, NULL AS name, (SELECT sum(count) FROM event_counts WHERE {where} AND minute >= ts AND minute < {end})
FROM newest ORDER BY ts
"""
TOTALS_AND_NAMES = """
, counted AS MATERIALIZED (
    SELECT ts, name, sum FROM newest, LATERAL (
        SELECT name, sum(count) FROM event_counts WHERE {where} AND minute >= ts AND minute < {end} GROUP BY name
    ) AS of_bucket
), top AS (
    SELECT name, row_number() OVER (ORDER BY sum(sum) DESC, name COLLATE "C") AS rank FROM counted GROUP BY name
)
(SELECT ts, NULL AS name, sum(sum) FROM counted GROUP BY ts ORDER BY ts)
UNION ALL
(SELECT ts, name, sum FROM counted JOIN top USING (name) WHERE rank <= %(names_max)s ORDER BY rank, ts)
"""
# Start of the bucket that holds a minute, and end of the one that starts at `ts`. Those of a calendar come with the
# query: PostgreSQL's time zones may be of another year than ours, and it takes the second of two midnights.
FIXED = ("date_bin(%(width)s, {minute}, %(epoch)s)", "ts + %(width)s")
CALENDAR = (
    "(%(edges)s::timestamptz[])[width_bucket({minute}, %(edges)s::timestamptz[])]",
    "(%(edges)s::timestamptz[])[width_bucket(ts, %(edges)s::timestamptz[]) + 1]",
)
FIRST_AND_LAST = "SELECT min(minute), max(minute) FROM event_counts WHERE {where}"
# The planner does not know how few rows that is, and would rather read all that there are.
BY_INDEX = "SET LOCAL enable_seqscan = off"


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Which counts of a project; `start` inclusive and `end` not, both at the edge of a bucket, None for no bound.

    `by_name` asks for those of each name, too.
    """

    project_id: UUID
    bucket: Bucket
    limit: int
    start: datetime | None
    end: datetime | None
    names: list[str]
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """Number of events in the bucket that starts at `ts`."""

    ts: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Non-empty buckets, oldest first: of all that was asked for, and of each of the NAMES_MAX most frequent names."""

    points: list[Point]
    names: dict[str, list[Point]]


class MetricsStore:
    """Every method raises what Database.transaction does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, query: SeriesQuery) -> Counts:
        """The newest non-empty buckets. Names come most frequent first, ties by name."""
        async with self._database.transaction() as connection, connection.pipeline():
            await connection.execute(BY_INDEX)
            parameters: dict[str, Any]
            if isinstance(query.bucket, CalendarBucket):
                edges = await _edges(connection, query, query.bucket)
                if not edges:
                    return Counts([], {})
                query = replace(query, start=edges[0], end=edges[-1])
                (start, end), totals, parameters = CALENDAR, TOTALS, {"edges": edges}
            else:
                (start, end), totals = FIXED, TOTALS_OF_FIXED
                parameters = {"width": query.bucket.width, "epoch": EPOCH}
            where = _where(query)
            older = sql.SQL("(SELECT max(minute) FROM event_counts WHERE {where} AND minute < b.ts)").format(
                where=where
            )
            cursor = await connection.execute(
                sql.SQL(NEWEST_BUCKETS + (TOTALS_AND_NAMES if query.by_name else totals)).format(
                    where=where,
                    newest=sql.SQL(start).format(minute=sql.SQL("max(minute)")),
                    next_older=sql.SQL(start).format(minute=older),
                    start=sql.SQL(start).format(minute=sql.SQL("minute")),
                    end=sql.SQL(end),
                ),
                _parameters(query) | parameters | {"limit": query.limit, "names_max": NAMES_MAX},
            )
            counts = Counts([], {})
            for ts, name, count in await cursor.fetchall():
                points = counts.points if name is None else counts.names.setdefault(name, [])
                points.append(Point(ts, int(count)))
            return counts


async def _edges(connection: Connection, query: SeriesQuery, bucket: CalendarBucket) -> list[datetime]:
    """Starts of all buckets from the first count to the last, oldest first, and the end of the last one."""
    statement = sql.SQL(FIRST_AND_LAST).format(where=_where(replace(query, names=[])))
    cursor = await connection.execute(statement, _parameters(query))
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return []
    first, last = row
    oldest = bucket.floor(first)
    starts = [*takewhile(lambda start: start >= oldest, bucket.backwards(last))]
    return [*reversed(starts), bucket.ceil(last + TICK)]


def _where(query: SeriesQuery) -> sql.Composable:
    conditions = [sql.SQL("project_id = %(project_id)s")]
    if query.start:
        conditions.append(sql.SQL("minute >= %(start)s"))
    if query.end:
        conditions.append(sql.SQL("minute < %(end)s"))
    if query.names:
        conditions.append(sql.SQL("name = ANY(%(names)s)"))
    return sql.SQL(" AND ").join(conditions)


def _parameters(query: SeriesQuery) -> dict[str, Any]:
    return {"project_id": query.project_id, "start": query.start, "end": query.end, "names": query.names}
