"""Monthly partitions of `events`, made ahead of time and when an event needs one."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from psycopg import sql

from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import Connection

# Any constant that no other program on the database uses for an advisory lock.
ADVISORY_LOCK = 7_346_218_002
MONTHS_AHEAD = 3
# What is older lies in `events_before_2020`, which a migration makes.
FIRST_MONTH = datetime(2020, 1, 1, tzinfo=UTC)
# A connection of PostgreSQL that is listing the partitions of `events` while one is attached may keep a list without
# it (RelationBuildPartitionDesc stores what it has read although it has been invalidated meanwhile), and would leave
# out its events until `events` is changed again. So that is done once such lists are made, before the first event: by
# what changes nothing and waits for nobody.
SETTLE_SECONDS = 0.2
LIST_PARTITIONS_ANEW = "GRANT SELECT ON events TO CURRENT_USER"
# Of this `events`: another schema on the search_path may have tables of the same names.
IS_THERE = """
SELECT EXISTS (
    SELECT FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = 'events'::regclass AND child.relname = %s
)
"""


def month_of(ts: datetime) -> datetime:
    """First moment of the month of `ts`, in UTC."""
    ts = ts.astimezone(UTC)
    return datetime(ts.year, ts.month, 1, tzinfo=UTC)


def next_month(month: datetime) -> datetime:
    """First moment of the month after `month`."""
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


class Partitions:
    """Knows which months have a partition, so that the common case asks nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[datetime] = set()
        self._making = asyncio.Lock()

    def known(self, months: Iterable[datetime]) -> bool:
        """Whether there is nothing for `ensure` to do."""
        return not self._lacking(months)

    def forget(self) -> None:
        """Ask again which months have a partition: one may have been dropped."""
        self._known.clear()

    async def ensure(self, months: Iterable[datetime]) -> None:
        """Make the partitions of `months` (as month_of gives them) that are not there yet.

        Runs in transactions of its own, before the one that inserts. Raises what Database.transaction does.
        """
        months = set(months)
        if self.known(months):
            return
        # Many may come at once for the same month.
        async with self._making:
            lacking = self._lacking(months)
            if not lacking:
                return
            async with self._alone() as connection:
                for month in sorted(lacking):
                    await _create(connection, month)
            await asyncio.sleep(SETTLE_SECONDS)
            async with self._alone() as connection:
                await connection.execute(LIST_PARTITIONS_ANEW)
            self._known |= lacking

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Connection]:
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
            yield connection

    def _lacking(self, months: Iterable[datetime]) -> set[datetime]:
        return {month for month in months if month >= FIRST_MONTH} - self._known

    async def ensure_ahead(self, now: datetime) -> None:
        """Make the partitions from the month of `now` on, MONTHS_AHEAD more."""
        months = [month_of(now)]
        for _ in range(MONTHS_AHEAD):
            months.append(next_month(months[-1]))
        await self.ensure(months)


async def _create(connection: Connection, month: datetime) -> None:
    name = f"events_{month:%Y_%m}"
    row = await (await connection.execute(IS_THERE, (name,))).fetchone()
    if row == (True,):
        return
    # ATTACH takes a weaker lock on the parent than CREATE ... PARTITION OF: ingest goes on meanwhile.
    await connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(sql.Identifier(name))
    )
    await connection.execute(
        sql.SQL("ALTER TABLE events ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(name), sql.Literal(month), sql.Literal(next_month(month))
        )
    )
