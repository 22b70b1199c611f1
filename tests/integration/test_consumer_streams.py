"""A stream of a consumer holds it until it ends, however that comes about."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from storage import append, new_event, new_project, new_user, opened, settings_for
from streaming import EARLIEST, running, shape, until

from nimbus_server.accounts.caller import Person
from nimbus_server.accounts.store import AccountStore
from nimbus_server.clock import now
from nimbus_server.consumers import store as store_module
from nimbus_server.consumers.store import ConsumerStore
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.projects.store import ProjectStore
from nimbus_server.stream import rights as rights_module
from nimbus_server.stream.hub import Hub
from nimbus_server.stream.rights import Rights
from nimbus_server.stream.store import LogReader
from nimbus_server.stream.streams import Named, Streams, Wanted


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


async def new_log(database: Database, owner: UUID | None = None) -> UUID:
    project = await new_project(database, owner)
    await append(EventLog(database, Partitions(database)), project, [new_event() for _ in range(10)])
    return project


class Worker:
    """A process with streams, and a way to open them for a consumer `c`."""

    def __init__(self, database: Database, caller: Person, project: UUID) -> None:
        self.hub = Hub(LogReader(database))
        self.rights = Rights(AccountStore(database), ProjectStore(database), ConsumerStore(database), now)
        self.caller, self.project = caller, project
        self.streams = Streams(self.hub, self.rights, ConsumerStore(database))
        self.opened = 0

    def stream(self, *, take_over: bool = False) -> asyncio.Task[None]:
        return asyncio.create_task(self._stream(Named("c", take_over)))

    async def _stream(self, named: Named) -> None:
        async with self.streams.open(Wanted(self.project, EARLIEST, shape(), 1, named), self.caller) as subscription:
            self.opened += 1
            async for _ in subscription.messages():
                pass


@pytest.fixture
async def workers(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Worker]]:
    monkeypatch.setattr(rights_module, "CHECK_SECONDS", 0.05)
    owner, session = await new_user(database), uuid4()
    await AccountStore(database).start_session(session, owner, uuid4(), 3600)
    project, caller = await new_log(database, owner), Person(owner, session, uuid4())
    made = [Worker(database, caller, project) for _ in range(2)]
    async with running(*(part for one in made for part in (one.hub, one.rights))):
        yield made
        assert [(one.hub._channels, one.rights._watched) for one in made] == [({}, set())] * 2


async def ended_with(stream: asyncio.Task[None]) -> Reason:
    async with asyncio.timeout(10):
        with pytest.raises(NimbusError) as caught:
            await stream
    return caught.value.reason


async def test_a_stream_holds_its_consumer_until_another_process_takes_over(
    database: Database, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "HOLD_SECONDS", 0.5)
    consumers, project = ConsumerStore(database), workers[0].project
    first = workers[0].stream()
    await until(lambda: workers[0].opened)
    # For longer than a hold lasts that is not renewed.
    async with database.transaction() as connection:
        await connection.execute("SELECT pg_sleep(1)")
    assert await ended_with(workers[1].stream()) is Reason.CONSUMER_BUSY
    second = workers[1].stream(take_over=True)
    assert await ended_with(first) is Reason.CONSUMER_TAKEN_OVER
    await until(lambda: workers[1].opened)
    # The one that is gone has not let go of what the other holds.
    assert [c.active for c in await consumers.of_project(project)] == [True]
    await consumers.delete(project, "c")
    assert await ended_with(second) is Reason.CONSUMER_NOT_FOUND


async def test_a_client_that_goes_away_at_any_moment_leaves_its_consumer_free(
    database: Database, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    consumers, project, held, hold = ConsumerStore(database), workers[0].project, asyncio.Event(), ConsumerStore.hold

    async def hold_and_no_more(*args: Any, **others: Any) -> int:
        position = await hold(*args, **others)
        held.set()
        await asyncio.Event().wait()
        return position

    async def goes_away(stream: asyncio.Task[None]) -> None:
        stream.cancel()
        await asyncio.wait([stream])
        assert [c.active for c in await consumers.of_project(project)] in ([], [False])

    for turns in range(0, 60, 3):
        stream = workers[0].stream()
        for _ in range(turns):
            await asyncio.sleep(0)
        await goes_away(stream)
    # Once it is stored, and before anyone here knows.
    monkeypatch.setattr(ConsumerStore, "hold", hold_and_no_more)
    stream = workers[0].stream()
    await held.wait()
    await goes_away(stream)


async def test_a_stream_whose_hold_cannot_be_renewed_ends_before_somebody_else_may_have_its_consumer(
    database: Database, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> set[UUID]:
        raise NimbusError(Reason.STORAGE_UNAVAILABLE, "away")

    monkeypatch.setattr(ConsumerStore, "renew", away)
    for module in (store_module, rights_module):
        monkeypatch.setattr(module, "HOLD_SECONDS", 1.0)
    monkeypatch.setattr(rights_module, "EXPIRY_SECONDS", 0.05)
    first = workers[0].stream()
    await until(lambda: workers[0].opened)
    reasons = []
    while not workers[1].opened:
        second = workers[1].stream()
        await asyncio.wait([second], timeout=0.05)
        if second.done():
            reasons.append(await ended_with(second))
    assert set(reasons) == {Reason.CONSUMER_BUSY}
    assert first.done()
    assert await ended_with(first) is Reason.STORAGE_UNAVAILABLE
    second.cancel()
    await asyncio.wait([second])


async def test_a_stream_that_is_to_end_keeps_its_consumer_from_nobody(
    database: Database, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (store_module, rights_module):
        monkeypatch.setattr(module, "HOLD_SECONDS", 0.5)
    first = workers[0]
    async with first.streams.open(
        Wanted(first.project, EARLIEST, shape(), 1, Named("c", False)), first.caller
    ) as stuck:
        stuck.end(NimbusError(Reason.API_KEY_UNKNOWN, "over"))
        # Its client has not taken note of that.
        while not workers[1].opened:
            second = workers[1].stream()
            await asyncio.wait([second], timeout=0.05)
    second.cancel()
    await asyncio.wait([second])
