"""Appends to the logs of projects in PostgreSQL: many requests in one commit."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from uuid import UUID

import psycopg

from nimbus_server.clock import DAY, moment
from nimbus_server.errors import NimbusError, api_key_unknown, project_not_found, storage_unavailable
from nimbus_server.ingest.commit import Append, Commit, Plan, Stored, copy_and_commit
from nimbus_server.ingest.event import NewEvent
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions, month_of
from nimbus_server.postgres.session import Connection

# Locked first and held to the end: positions are given out in the order of commits.
LOCK_STREAMS = "SELECT project_id, last_seq FROM streams WHERE project_id = ANY(%s) ORDER BY project_id FOR UPDATE"
LOCK_FREE_STREAMS = f"{LOCK_STREAMS} SKIP LOCKED"
# By the clock: to PostgreSQL now() is when the transaction began, and that was before it waited for the log.
KEYS_IN_FORCE = "SELECT id FROM api_keys WHERE id = ANY(%s) AND (expires_at IS NULL OR expires_at > clock_timestamp())"

# What to append, given the projects for which it can be.
Take = Callable[[Collection[UUID]], Sequence[Append]]

# COPY can't skip what is stored already: it fails. After a repeat has turned up in a project, so many of its next
# commits look for more of them before they COPY, and fewer where none are found.
LOOKS_AFTER_REPEAT = 50
LOOK_IN_VAIN = 5


class _RepeatError(Exception):
    """COPY found an event that is stored already."""


class _PartitionMissingError(Exception):
    """There is no partition for some of these events: it was dropped since it was made."""

    def __init__(self, events: list[NewEvent]) -> None:
        super().__init__()
        self.events = events


class EventLog:
    """The writing end of the logs."""

    def __init__(self, database: Database, partitions: Partitions) -> None:
        self._database = database
        self._partitions = partitions
        self._looks: dict[UUID, int] = {}

    def has_partitions(self, events: Iterable[NewEvent]) -> bool:
        """Whether the partitions that the events need are known to be there."""
        return self._partitions.known(_months(events))

    async def make_partitions(self, events: Iterable[NewEvent]) -> None:
        """Make the partitions that the events need. Raises what Database.transaction does."""
        await self._partitions.ensure(_months(events))

    async def append(self, appends: Sequence[Append]) -> list[Stored | NimbusError]:
        """As `commit`, with what becomes of each of these."""
        outcomes = await self.commit({append.project_id for append in appends}, lambda _: appends)
        return [outcomes[append] for append in appends]

    async def commit(
        self, project_ids: Collection[UUID], take: Take, *, wait: bool = True
    ) -> dict[Append, Stored | NimbusError]:
        """Store what `take` gives for these projects and is not stored yet, in one commit.

        Logs that somebody else holds are left aside, or with `wait` waited for. `take` is asked only then, with those
        projects that it may give something for, so that it can give all that has come meanwhile; and again where a
        repeat spoils the commit. The partitions must have been made. Raises what Database.transaction does; then
        nothing is stored, or it is not known whether.
        """
        try:
            # A repeat in any of the logs has all of them looked through next time; but one that others held meanwhile
            # may be free only then.
            for _ in project_ids:
                with suppress(_RepeatError):
                    return await self._commit(project_ids, take, wait=wait)
            return await self._commit(project_ids, take, wait=wait)
        except _PartitionMissingError as error:
            self._partitions.forget()
            await self.make_partitions(error.events)
            raise storage_unavailable() from None

    async def _commit(
        self, project_ids: Collection[UUID], take: Take, *, wait: bool
    ) -> dict[Append, Stored | NimbusError]:
        async def begin(connection: Connection, _: AsyncExitStack) -> dict[UUID, int]:
            locked = await connection.execute(LOCK_STREAMS if wait else LOCK_FREE_STREAMS, (list(project_ids),))
            return dict(await locked.fetchall())

        plans: dict[UUID, list[Plan]] = {}
        outcomes: dict[Append, Stored | NimbusError] = {}
        async with self._database.begun_by(begin) as (connection, last_seqs):
            appends = take(project_ids if wait else last_seqs)
            # Only now, so that no key is taken that was rotated away before its request came.
            keys_in_force = await _keys_in_force(connection, appends)
            for append in appends:
                if append.key_id is not None and append.key_id not in keys_in_force:
                    outcomes[append] = api_key_unknown()
                elif append.project_id in last_seqs:
                    plans.setdefault(append.project_id, []).append(Plan(append, append.events))
                else:
                    outcomes[append] = project_not_found()
            await self._write(
                connection, {p: Commit(connection, p, last_seqs[p], of_project) for p, of_project in plans.items()}
            )
        for plan in (plan for of_project in plans.values() for plan in of_project):
            outcomes[plan.append] = Stored(plan.first_seq, plan.events)
        return outcomes

    async def _write(self, connection: Connection, commits: dict[UUID, Commit]) -> None:
        for project_id, commit in commits.items():
            await commit.settle()
            looks = self._looks.pop(project_id, 0)
            if looks > 0:
                found = await commit.drop_stored()
                self._looks[project_id] = LOOKS_AFTER_REPEAT if found else looks - LOOK_IN_VAIN
        try:
            await copy_and_commit(connection, list(commits.values()))
        except psycopg.errors.CheckViolation:
            # As they are to be stored, not as they came: a key may have come first in a month that is gone.
            raise _PartitionMissingError([e for commit in commits.values() for e in commit.events]) from None
        except psycopg.DatabaseError as error:
            if not _is_repeat(error):
                raise
            self._looks.update(dict.fromkeys(commits, LOOKS_AFTER_REPEAT))
            raise _RepeatError from None


async def _keys_in_force(connection: Connection, appends: Sequence[Append]) -> set[str]:
    keys = list({append.key_id for append in appends if append.key_id is not None})
    if not keys:
        return set()
    return {key for (key,) in await (await connection.execute(KEYS_IN_FORCE, (keys,))).fetchall()}


def _months(events: Iterable[NewEvent]) -> set[datetime]:
    return {month_of(moment(day * DAY)) for day in {event.ts // DAY for event in events}}


def _is_repeat(error: psycopg.DatabaseError) -> bool:
    # Citus reports what a shard reports, with its own code.
    return isinstance(error, psycopg.errors.UniqueViolation) or (
        error.sqlstate == "XX000" and "duplicate key value violates unique constraint" in str(error)
    )
