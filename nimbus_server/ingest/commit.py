"""What one commit does to logs that are locked: settle times, leave repeats out, give positions, copy, count."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from uuid import UUID

from nimbus_server.clock import MINUTE
from nimbus_server.ingest.copy_rows import COPY_EVENTS, HEADER, TRAILER, rows
from nimbus_server.ingest.event import NewEvent
from nimbus_server.postgres.arrays import TimestamptzArray, UuidArray
from nimbus_server.postgres.session import Connection

REMEMBER_TS = """
INSERT INTO event_keys (project_id, id, ts)
SELECT DISTINCT ON (id) %(project_id)s, id, ts
FROM unnest(%(ids)s, %(tss)s) WITH ORDINALITY AS k (id, ts, n) ORDER BY id, n
ON CONFLICT (project_id, id) DO NOTHING
"""
RECALL_TS = """
SELECT k.n, (extract(epoch FROM e.ts) * 1000000)::bigint
FROM unnest(%(ids)s) WITH ORDINALITY AS k (id, n)
JOIN event_keys e ON e.project_id = %(project_id)s AND e.id = k.id AND e.id = ANY(%(ids)s)
"""
# A scalar subquery on purpose: a join might read the whole log instead of probing its primary key. The bounds on ts
# leave the partitions aside that the batch does not touch. Nobody else appends to this project meanwhile, so what is
# not there stays so.
FIND_STORED = """
SELECT i.n FROM unnest(%(tss)s, %(ids)s) WITH ORDINALITY AS i (ts, id, n)
WHERE (SELECT true FROM events e WHERE e.project_id = %(project_id)s AND e.ts = i.ts AND e.id = i.id
                         AND e.ts BETWEEN (%(bounds)s)[1] AND (%(bounds)s)[2])
"""
# A project that is younger than the statistics is taken for empty, and each probe would read all of it.
PLAN_FOR_ANY_PROJECT = "SET LOCAL plan_cache_mode = force_generic_plan"
ADD_COUNTS = """
INSERT INTO event_counts AS c (project_id, minute, name, count)
SELECT * FROM unnest(%s, %s, %s::text[], %s::bigint[])
ON CONFLICT (project_id, minute, name) DO UPDATE SET count = c.count + excluded.count
"""
ADVANCE_STREAM = "UPDATE streams SET last_seq = %s WHERE project_id = %s"

# About what a socket holds.
COPY_PART_BYTES = 128 * 1024
ROWS_AT_A_TIME = 500


@dataclass(slots=True, eq=False)
class Append:
    """The events of one request for a project's log.

    `key_id` is the API key by whose right they come, None for a person. `received_at` is in microseconds since 1970.
    """

    project_id: UUID
    key_id: str | None
    events: list[NewEvent]
    received_at: int


@dataclass(frozen=True, slots=True)
class Stored:
    """Those events of an Append that were not stored before, at the positions from `first_seq` on."""

    first_seq: int
    events: list[NewEvent]


@dataclass(slots=True)
class Plan:
    """An append, and those of its events that are still to be stored, from `first_seq` on."""

    append: Append
    events: list[NewEvent]
    first_seq: int = 0


class Commit:
    """The appends to one project's log, within a transaction that holds it; `last_seq` is its last position."""

    def __init__(self, connection: Connection, project_id: UUID, last_seq: int, plans: Sequence[Plan]) -> None:
        self._connection = connection
        self.project_id = project_id
        self._last_seq = last_seq
        self._plans = plans

    async def settle(self) -> None:
        """Give floating events the ts with which they came first, and leave the first of those that are the same."""
        floating = [e for plan in self._plans for e in plan.events if e.floating]
        if floating:
            await self._settle(floating)
        _drop_repeats(self._plans)

    async def _settle(self, floating: list[NewEvent]) -> None:
        events = {
            "project_id": self.project_id,
            "ids": UuidArray([e.id for e in floating]),
            "tss": TimestamptzArray([e.ts for e in floating]),
        }
        await self._connection.execute(REMEMBER_TS, events)
        first_ts: dict[int, int] = dict(await (await self._connection.execute(RECALL_TS, events)).fetchall())
        place = count(1)
        for plan in self._plans:
            plan.events = [e._replace(ts=first_ts[next(place)]) if e.floating else e for e in plan.events]

    async def drop_stored(self) -> int:
        """Leave out what is stored already, and say how much that was."""
        events = self.events
        if not events:
            return 0
        tss = [e.ts for e in events]
        await self._connection.execute(PLAN_FOR_ANY_PROJECT)
        cursor = await self._connection.execute(
            FIND_STORED,
            {
                "project_id": self.project_id,
                "tss": TimestamptzArray(tss),
                "ids": UuidArray([e.id for e in events]),
                "bounds": TimestamptzArray([min(tss), max(tss)]),
            },
        )
        stored = {n for (n,) in await cursor.fetchall()}
        if stored:
            place = count(1)
            for plan in self._plans:
                plan.events = [e for e in plan.events if next(place) not in stored]
        return len(stored)

    def rows(self) -> Iterator[list[bytes]]:
        """The events at the next positions, as COPY takes them, some at a time."""
        project, seq = self.project_id.bytes, self._last_seq + 1
        for plan in self._plans:
            plan.first_seq = seq
            for start in range(0, len(plan.events), ROWS_AT_A_TIME):
                some = plan.events[start : start + ROWS_AT_A_TIME]
                yield rows(project, some, seq, plan.append.received_at)
                seq += len(some)

    def counts(self) -> Counter[tuple[int, str]]:
        """Events by minute (since 1970) and name."""
        return Counter([(e.ts // MINUTE, e.name) for plan in self._plans for e in plan.events])

    @property
    def events(self) -> list[NewEvent]:
        """Those that are still to be stored."""
        return [event for plan in self._plans for event in plan.events]

    @property
    def size(self) -> int:
        """Number of events that are still to be stored."""
        return sum(len(plan.events) for plan in self._plans)

    @property
    def advance(self) -> tuple[int, UUID]:
        """The new last position, and whose it is."""
        return self._last_seq + self.size, self.project_id


async def copy_and_commit(connection: Connection, commits: Sequence[Commit]) -> None:
    """Store the events of all, count them, and commit.

    Raises psycopg.DatabaseError where one of them is stored already.
    """
    if not any(commit.size for commit in commits):
        await connection.commit()
        return
    async with connection.cursor().copy(COPY_EVENTS) as sink:
        # PostgreSQL works on one part while the next is made here, and on the last while they are counted.
        part = HEADER
        for some in (some for commit in commits for some in commit.rows()):
            part += b"".join(some)
            if len(part) >= COPY_PART_BYTES:
                await sink.write(part)
                part = b""
        await sink.write(part + TRAILER)
        counts = _Counts(commits)
    async with connection.pipeline():
        await connection.execute(ADD_COUNTS, counts.parameters)
        for commit in commits:
            await connection.execute(ADVANCE_STREAM, commit.advance)
        await connection.commit()


class _Counts:
    """Events by project, minute and name, as columns."""

    def __init__(self, commits: Iterable[Commit]) -> None:
        projects: list[bytes] = []
        minutes: list[int] = []
        names: list[str] = []
        counts: list[int] = []
        for commit in commits:
            counted = commit.counts()
            projects += [commit.project_id.bytes] * len(counted)
            minutes += [minute * MINUTE for minute, _ in counted]
            names += [name for _, name in counted]
            counts += counted.values()
        self.parameters = (UuidArray(projects), TimestamptzArray(minutes), names, counts)


def _drop_repeats(plans: Sequence[Plan]) -> None:
    if len({e.id for plan in plans for e in plan.events}) == sum(len(plan.events) for plan in plans):
        return
    seen: set[tuple[int, bytes]] = set()
    for plan in plans:
        first = []
        for event in plan.events:
            if (event.ts, event.id) not in seen:
                seen.add((event.ts, event.id))
                first.append(event)
        plan.events = first
