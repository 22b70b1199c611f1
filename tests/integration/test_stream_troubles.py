"""What a stream does when the log is not what it was: nothing is skipped in silence, and nobody spins or dies of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage import append, new_event, new_project, opened, settings_for
from streaming import EARLIEST, EVERYTHING, Subscriber, running, running_hub, shape, until

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.stream import hub as hubs
from nimbus_server.stream import subscription as subscriptions
from nimbus_server.stream.event import StreamedEvent
from nimbus_server.stream.filter import EventFilter, SeenEvent
from nimbus_server.stream.hub import Hub, Start
from nimbus_server.stream.page import BATCH_EVENTS_MAX, Page
from nimbus_server.stream.store import Found, LogReader
from nimbus_server.stream.subscription import Subscription

OF_A = EventFilter(names=frozenset({"a"}))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(hubs, "TICK_SECONDS", 0.1)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


@pytest.fixture
async def log(database: Database) -> EventLog:
    return EventLog(database, Partitions(database))


@pytest.fixture
async def project(database: Database) -> UUID:
    return await new_project(database)


async def execute(dsn: str, *statements: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


@pytest.mark.parametrize("behind", [False, True])
async def test_a_log_that_has_lost_its_end_ends_its_streams_and_goes_on_with_new_ones(
    dsn: str, database: Database, log: EventLog, project: UUID, behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restore; `behind` is a reader that has not come as far as the ring, and reads the log itself."""
    monkeypatch.setattr(hubs, "RING_BYTES_MAX", 100 if behind else 1 << 20)
    await append(log, project, [new_event() for _ in range(BATCH_EVENTS_MAX + 100)])
    async with running_hub(database) as hub:
        reader = Subscriber(hub, project).open(EARLIEST).let(2 if behind else None)
        # It takes nothing, and so keeps the feed as long as it may.
        stuck = Subscriber(hub, project).open(EARLIEST)
        await reader.reaches(BATCH_EVENTS_MAX if behind else BATCH_EVENTS_MAX + 100)
        await execute(dsn, "DELETE FROM events WHERE seq > 20", "UPDATE streams SET last_seq = 20")
        reader.let()
        await until(lambda: not reader.is_open)
        assert reader.error
        assert reader.error.reason is Reason.POSITION_AHEAD
        fresh = Subscriber(hub, project).open(Start(after_seq=15)).let()
        for last in (25, 30):
            await append(log, project, [new_event() for _ in range(5)])
            await hub._look()
            await fresh.reaches(last)
        assert fresh.seen == list(range(16, 31))
        assert stuck.is_open
        await fresh.close()
        await stuck.close()


async def test_a_reader_beyond_the_end_of_the_log_does_not_ask_again_and_again(
    database: Database, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Semaphore(0)
    page = LogReader.page

    async def counted(*arguments: Any) -> Found:
        asked.release()
        return await page(*arguments)

    monkeypatch.setattr(LogReader, "page", counted)
    monkeypatch.setattr(subscriptions, "RETRY_SECONDS", 3600.0)
    hub = Hub(LogReader(database))
    async with hub.subscribe(project, 0, shape(), 1) as one:
        hub._channels[project].task.cancel()
        hub._channels[project].feed.start = hub._channels[project].feed.end = 10
        reading = asyncio.create_task(_read_all(one))
        await asked.acquire()
        await asyncio.wait([reading], timeout=0.3)
        assert asked.locked()
        reading.cancel()
        await asyncio.wait([reading])


async def _read_all(one: Subscription) -> None:
    async for _ in one.messages():
        pass


async def test_a_feed_outlives_a_project_that_was_not_there_for_a_moment(
    dsn: str, database: Database, log: EventLog, project: UUID
) -> None:
    async with running_hub(database) as hub:
        reader = Subscriber(hub, project).open(EARLIEST).let()
        await until(lambda: reader.told)
        await execute(dsn, "CREATE TABLE aside AS SELECT * FROM streams", "DELETE FROM streams")
        feed = hub._channels[project].feed
        hub.wake_all()
        await until(lambda: not feed._work.is_set())
        await execute(dsn, "INSERT INTO streams SELECT * FROM aside")
        await append(log, project, [new_event()])
        hub.wake_all()
        await reader.reaches(1)
        await reader.close()


async def test_whatever_happens_to_a_poll_it_goes_on(dsn: str, database: Database, project: UUID) -> None:
    hub = Hub(LogReader(database))
    async with running(hub):
        reader = Subscriber(hub, project).open(EARLIEST).let()
        await until(lambda: reader.told)
        await execute(dsn, "ALTER TABLE streams RENAME TO aside")
        with pytest.raises(psycopg.errors.UndefinedTable):
            await hub._reader.last_seqs([project])
        await hub._look()
        await execute(dsn, "ALTER TABLE aside RENAME TO streams")
        await append(EventLog(database, Partitions(database)), project, [new_event()])
        await reader.reaches(1)
        await reader.close()


async def test_only_who_waits_for_a_page_passes_over_it(
    database: Database, log: EventLog, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(log, project, [new_event(name="a") for _ in range(BATCH_EVENTS_MAX + 100)])
    page, slow = LogReader.page, asyncio.Event()

    async def held(self: LogReader, of: UUID, after: int, which: EventFilter, *others: Any) -> Found:
        if which.names:
            await slow.wait()
        return await page(self, of, after, which, *others)

    monkeypatch.setattr(LogReader, "page", held)
    async with running_hub(database) as hub:
        reader = Subscriber(hub, project, shape(OF_A), 0.1).open(EARLIEST).let()
        await until(lambda: reader.told)
        await append(log, project, [new_event(name="b")])
        hub.wake(project)
        await until(lambda: hub._channels[project].feed.end == BATCH_EVENTS_MAX + 101)
        # It waits for its own page, and says so from time to time.
        beats = len(reader.told)
        await until(lambda: len(reader.told) > beats + 2)
        slow.set()
        await append(log, project, [new_event(name="a")])
        hub.wake(project)
        await reader.reaches(BATCH_EVENTS_MAX + 102)
        assert reader.seen == [*range(1, BATCH_EVENTS_MAX + 101), BATCH_EVENTS_MAX + 102]
        await reader.close()


async def test_who_has_passed_over_pages_reads_none_of_them(
    database: Database, log: EventLog, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, read = LogReader.page, list[EventFilter]()

    async def noted(self: LogReader, of: UUID, after: int, which: EventFilter, *others: Any) -> Found:
        read.append(which)
        return await page(self, of, after, which, *others)

    monkeypatch.setattr(LogReader, "page", noted)
    async with running_hub(database) as hub:
        reader = Subscriber(hub, project, shape(OF_A), 0.1).open(Start()).let()
        await until(lambda: reader.told)
        await append(log, project, [new_event(name="b")])
        hub.wake(project)
        feed = hub._channels[project].feed
        await until(lambda: feed.waited_at(OF_A, 0) == 1)
        # They are gone from the ring when its next heartbeat comes.
        feed.shrink(0)
        feed.tidy()
        await reader.reaches(1)
        assert OF_A not in read
        await reader.close()


async def test_a_page_that_takes_too_long_is_asked_for_in_smaller_parts_and_given_up_in_the_end(
    database: Database, log: EventLog, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(log, project, [new_event(name="ab"[n % 2]) for n in range(BATCH_EVENTS_MAX + 300)])
    page, window_max = LogReader.page, 30

    async def timed(
        self: LogReader, of: UUID, after: int, which: EventFilter, limit: int, window: int | None = None
    ) -> Found:
        if which.names and (window is None or window > window_max):
            raise NimbusError(Reason.DEADLINE_EXCEEDED, "too long")
        return await page(self, of, after, which, limit, window)

    monkeypatch.setattr(LogReader, "page", timed)
    async with running_hub(database) as hub:
        patient = Subscriber(hub, project, shape(OF_A)).open(EARLIEST).let()
        await patient.reaches(BATCH_EVENTS_MAX + 299)
        assert patient.seen == list(range(1, BATCH_EVENTS_MAX + 300, 2))
        await patient.close()
        window_max = 0
        refused = Subscriber(hub, project, shape(OF_A)).open(EARLIEST).let()
        await until(lambda: not refused.is_open)
        assert refused.error
        assert refused.error.reason is Reason.DEADLINE_EXCEEDED


async def test_who_takes_nothing_is_cut_off_once_the_stream_is_to_end(
    database: Database, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "END_SECONDS_MAX", 0.1)
    async with running_hub(database) as hub:
        stuck = Subscriber(hub, project).open(Start())
        await until(lambda: hub.subscriptions)
        hub.subscriptions[0].end(NimbusError(Reason.SESSION_ENDED, "over"))
        await until(lambda: not stuck.is_open)
        assert (hub._channels, hub._count) == ({}, 0)


async def test_only_those_count_for_the_pause_for_whom_there_is_something(database: Database, project: UUID) -> None:
    hub = Hub(LogReader(database))
    readers = [Subscriber(hub, project, shape(which)).open(Start()).let() for which in (EVERYTHING, OF_A, OF_A)]
    await until(lambda: len(hub.subscriptions) == 3)
    at = [
        StreamedEvent._make((UUID(int=n), n, None, None, name, None, None, "{}", None, "{}"))
        for n, name in ((1, "b"), (2, "a"))
    ]
    channel, pages = hub._channels[project], [Page(project, n, n + 1, at[n : n + 1]) for n in (0, 1)]

    async def all_wait() -> dict[Subscription, asyncio.Future[None] | None]:
        await until(lambda: all(s._waiting and not s._waiting.done() for s in hub.subscriptions))
        return {s: s._waiting for s in hub.subscriptions}

    waiting = await all_wait()
    channel.feed._add(pages[0])
    assert await channel.offer(pages[0]) == 1
    assert [s.filter for s, woken in waiting.items() if woken.done()] == [EVERYTHING]
    assert channel.feed.waited_at(OF_A, 0) == 1
    waiting = await all_wait()
    channel.feed._add(pages[1])
    assert await channel.offer(pages[1]) == 3
    assert all(woken.done() for woken in waiting.values())
    # They are busy with it.
    assert await channel.offer(pages[1]) == 0
    await readers[1].close()
    assert channel.feed.waited_at(OF_A, 0) == 1
    await readers[2].close()
    assert channel.feed.waited_at(OF_A, 0) == 0
    await readers[0].close()


WANTED = st.sampled_from([b"", b'{"n":1}', b'{"n":[1]}', b'{"n":{"m":true}}'])
FILTERS = st.builds(
    EventFilter,
    st.frozensets(st.sampled_from("ab"), max_size=1),
    st.none() | st.sampled_from("uv"),
    WANTED,
    st.none() | st.sampled_from("xy"),
    WANTED,
)
VALUES = st.sampled_from(["1", "[1,2]", '{"m":true}', "2"])
EVENTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from([None, "u"]), VALUES, st.sampled_from([None, "x"]), VALUES)
)


@given(EVENTS, st.sets(FILTERS, max_size=6))
async def test_many_filters_find_together_what_each_finds_alone(
    sent: list[tuple[str, str | None, str, str | None, str]], filters: set[EventFilter]
) -> None:
    events = [
        StreamedEvent._make(
            (UUID(int=n), n, None, None, name, user, None, f'{{"n":{value}}}', anonymous, f'{{"n":{other}}}')
        )
        for n, (name, user, value, anonymous, other) in enumerate(sent, start=1)
    ]
    page = Page(UUID(int=0), 0, len(events), events)
    for which, found in (await page.match(filters)).items():
        assert found == [event for event in events if which.matches(SeenEvent(event))]
    assert page.matching.keys() == filters
