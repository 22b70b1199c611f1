"""Whoever reads a log, from wherever, sees what matches behind the start in order and once, whatever happens around."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_checks import WITH_ONE_DATABASE
from storage import new_project, opened, settings_for
from stream_world import FILTERS, WRITERS_MAX, World

from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.stream import feed, hub, page, store, subscription
from nimbus_server.stream.hub import Hub
from nimbus_server.stream.store import LogReader

PLACES = st.floats(0, 1, allow_nan=False)
WAKE_UPS = st.sampled_from(["delivered", "delivered twice", "delayed", "lost"])
COMMIT = st.tuples(st.just("commit"), st.integers(1, 7), WAKE_UPS)
SUBSCRIBE = st.tuples(
    st.just("subscribe"),
    st.sampled_from(["latest", "earliest", "after", "since"]),
    PLACES,
    st.sampled_from(FILTERS),
    st.sampled_from([1, 2, 500]),
)
STEPS = st.one_of(
    COMMIT,
    COMMIT,
    SUBSCRIBE,
    st.tuples(st.just("read"), st.integers(0, 5), st.integers(1, 4)),
    st.tuples(st.just("stop"), st.integers(0, 5)),
    st.tuples(st.just("resume"), st.integers(0, 5)),
    st.tuples(st.just("deliver late")),
    st.tuples(st.just("poll")),
    st.tuples(st.just("turns"), st.integers(1, 30)),
    st.tuples(st.just("retention"), PLACES, PLACES),
)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


@given(
    st.lists(STEPS, min_size=5, max_size=30),
    st.sampled_from([0, 2_500, 1 << 20]),
    st.sampled_from([(2, 3), (3, 5), (500, 20_000)]),
)
@settings(WITH_ONE_DATABASE, max_examples=60)
async def test_every_reader_sees_every_event_that_it_wants_once(
    database: Database, steps: list[tuple], ring_bytes: int, sizes: tuple[int, int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "RING_BYTES_MAX", ring_bytes)
        patch.setattr(hub, "ARRIVAL_DISORDER", timedelta(seconds=WRITERS_MAX + 1))
        for module in (feed, subscription):
            patch.setattr(module, "BATCH_EVENTS_MAX", sizes[0])
        patch.setattr(store, "WINDOW_POSITIONS", sizes[1])
        patch.setattr(page, "EVENTS_AT_ONCE", sizes[0] - 1)
        world = World(
            database,
            await new_project(database),
            [Hub(LogReader(database)) for _ in range(2)],
            [EventLog(database, Partitions(database)) for _ in range(2)],
        )
        for name, *values in steps:
            await getattr(world, name.replace(" ", "_"))(*values)
        await world.end()
