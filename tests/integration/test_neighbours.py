"""One request's failure never fails its neighbours in a commit."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from storage import NOW, log_of, new_event, new_project, new_user, opened, origin_of, running_ingest, settings_for

from nimbus_server.accounts.api_keys import new_api_key
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.copy_rows import NEITHER, NULL, jsonb, text
from nimbus_server.ingest.decode import Batch
from nimbus_server.ingest.event import NewEvent
from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.ingest.receipt import Receipt
from nimbus_server.postgres.database import Database
from nimbus_server.projects.store import ProjectStore

BROKEN = {
    "lengths that lie": new_event()._replace(texts=b"\x7f\xff\xff\xff" + bytes(20)),
    "a missing column": new_event()._replace(texts=text(b"n") + NULL),
    "NUL": new_event()._replace(texts=text(b"a\0b") + NULL + NULL + NEITHER + jsonb(b"{}")),
    "bad UTF-8": new_event()._replace(texts=text(b"\xff") + NULL + NULL + NEITHER + jsonb(b"{}")),
    "no name": new_event()._replace(texts=NULL + NULL + NULL + NEITHER + jsonb(b"{}")),
    "bad JSON in context": new_event()._replace(texts=text(b"n") + NULL * 3 + jsonb(b"{") + jsonb(b"{}")),
    "bad JSON": new_event()._replace(texts=text(b"n") + NULL + NULL + NEITHER + jsonb(b"{")),
    "a time that has no bytes": new_event()._replace(ts=2**70),
    "an identity that has no bytes": new_event()._replace(id="id"),  # type: ignore[arg-type]
}


@dataclass(frozen=True)
class Caller:
    project: UUID
    key_id: str | None = None

    async def send(self, ingest: Ingest, *events: NewEvent) -> Receipt:
        return await ingest.store(self.project, Batch(list(events), []), origin_of(key_id=self.key_id))


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


@pytest.fixture
async def ingest(database: Database) -> AsyncIterator[Ingest]:
    """It knows the partition, so that batches that are stored at once are in one commit."""
    async with running_ingest(database) as running:
        await Caller(await new_project(database)).send(running, new_event())
        yield running


async def between_good_ones(
    database: Database, ingest: Ingest, bad: Caller, event: NewEvent, good: list[Caller]
) -> BaseException:
    """How the bad one fails; the good ones before and after it must not."""
    calls = [caller.send(ingest, new_event()) for caller in good]
    calls.append(bad.send(ingest, event))
    calls += [caller.send(ingest, new_event()) for caller in good]
    *receipts, failure = await asyncio.gather(
        *calls[: len(good)], *calls[len(good) + 1 :], calls[len(good)], return_exceptions=True
    )
    assert [isinstance(receipt, Receipt) and receipt.accepted for receipt in receipts] == [1] * len(receipts)
    for caller in good:
        assert [row.seq for row in await log_of(database, caller.project)] == [1, 2]
    assert isinstance(failure, BaseException)
    return failure


@pytest.mark.parametrize("broken", BROKEN)
async def test_an_event_that_postgresql_does_not_take_fails_its_own_request(
    database: Database, ingest: Ingest, broken: str
) -> None:
    mine, others = await new_project(database), await new_project(database)
    failure = await between_good_ones(database, ingest, Caller(mine), BROKEN[broken], [Caller(mine), Caller(others)])
    assert not isinstance(failure, NimbusError)
    # And the writer is in order.
    assert (await Caller(mine).send(ingest, new_event())).stored == {0: 3}


async def test_a_dead_key_or_another_projects_fails_its_own_request(database: Database, ingest: Ingest) -> None:
    owner, projects = await new_user(database), ProjectStore(database)
    dead, alive = new_api_key(), new_api_key()
    mine = (await projects.create(uuid4(), "mine", owner, dead.id, b"sealed")).id
    await Caller(mine, dead.id).send(ingest, new_event())
    await projects.rotate_key(owner, mine, alive.id, b"sealed", 0)
    others = [Caller(await new_project(database)), Caller(await new_project(database))]
    failure = await between_good_ones(database, ingest, Caller(mine, dead.id), new_event(), others)
    assert isinstance(failure, NimbusError)
    assert failure.reason is Reason.API_KEY_UNKNOWN
    assert (await Caller(mine, alive.id).send(ingest, new_event())).stored == {0: 2}


async def test_a_deleted_project_fails_its_own_requests(database: Database, ingest: Ingest) -> None:
    owner = await new_user(database)
    gone, stays = await new_project(database, owner), Caller(await new_project(database, owner))
    await ProjectStore(database).delete(owner, gone)
    failure = await between_good_ones(database, ingest, Caller(gone), new_event(), [stays])
    assert isinstance(failure, NimbusError)
    assert failure.reason is Reason.PROJECT_NOT_FOUND


async def test_a_key_that_came_first_in_a_month_that_is_gone_fails_nobody(database: Database, ingest: Ingest) -> None:
    mine, other = Caller(await new_project(database)), Caller(await new_project(database))
    first, later = new_event()._replace(floating=True), new_event(NOW + timedelta(days=60))
    await mine.send(ingest, first)
    await other.send(ingest, later)
    async with database.transaction() as connection:
        await connection.execute("DROP TABLE events_2025_11")
    receipts = await asyncio.gather(mine.send(ingest, first._replace(ts=later.ts)), other.send(ingest, later))
    assert [(receipt.accepted, receipt.duplicates) for receipt in receipts] == [(1, 0), (0, 1)]
    assert [row.ts for row in await log_of(database, mine.project)] == [NOW]


async def test_a_time_without_a_partition_fails_nobody(database: Database, ingest: Ingest) -> None:
    """As when retention dropped it since this worker made it: it is made again."""
    mine, other = Caller(await new_project(database)), Caller(await new_project(database))
    async with database.transaction() as connection:
        await connection.execute("DROP TABLE events_2025_11")
    receipts = await asyncio.gather(*(caller.send(ingest, new_event()) for caller in (mine, other)))
    assert [receipt.accepted for receipt in receipts] == [1, 1]
