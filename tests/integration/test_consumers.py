"""Consumers: one stream at a time holds one, whoever asks, dies or goes away; and its position is where it was put."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_checks import WITH_ONE_DATABASE
from storage import append, new_event, new_project, opened, settings_for

from nimbus_server.consumers import store as consumer_store
from nimbus_server.consumers.store import ConsumerStore, Hold
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions

EVENTS = 10
POSITIONS = st.integers(0, EVENTS + 3)
STEPS = st.one_of(
    st.tuples(st.just("hold"), st.integers(0, 2), POSITIONS, st.booleans()),
    st.tuples(st.just("renew"), st.integers(0, 2)),
    st.tuples(st.just("release"), st.integers(0, 2)),
    st.tuples(st.just("lapse")),
    st.tuples(st.just("ack"), POSITIONS, st.booleans()),
    st.tuples(st.just("delete")),
)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


async def new_log(database: Database, owner: UUID | None = None) -> UUID:
    project = await new_project(database, owner)
    await append(EventLog(database, Partitions(database)), project, [new_event() for _ in range(EVENTS)])
    return project


async def lapse(database: Database, project: UUID) -> None:
    """As if nobody had been heard of for long."""
    async with database.transaction() as connection:
        await connection.execute(
            "UPDATE consumers SET held_until = now() - interval '1s' WHERE project_id = %s", [project]
        )


class Model:
    """A consumer as it should be."""

    def __init__(self) -> None:
        self.position: int | None = None
        self.holder: int | None = None
        self.lapsed = False

    def hold(self, who: int, position: int, take_over: bool) -> int | Reason:
        if self.position is None:
            self.position, self.holder, self.lapsed = position, None, False
        if self.holder is not None and not (take_over or self.lapsed):
            return Reason.CONSUMER_BUSY
        self.holder, self.lapsed = who, False
        return self.position

    def renew(self, who: int) -> bool:
        still = self.position is not None and self.holder == who
        self.lapsed = self.lapsed and not still
        return still

    def release(self, who: int) -> None:
        if self.holder == who:
            self.holder = None

    def ack(self, position: int, rewind: bool) -> int | Reason:
        if self.position is None:
            return Reason.CONSUMER_NOT_FOUND
        if position > EVENTS:
            return Reason.POSITION_AHEAD
        self.position = position if rewind else max(position, self.position)
        return self.position

    def delete(self) -> Reason | None:
        found, self.position, self.holder = self.position, None, None
        return Reason.CONSUMER_NOT_FOUND if found is None else None


@given(st.lists(STEPS, min_size=3, max_size=15))
@settings(WITH_ONE_DATABASE, max_examples=50)
async def test_a_consumer_is_what_a_simple_model_says(database: Database, steps: list[tuple]) -> None:
    project, consumers, model = await new_log(database), ConsumerStore(database), Model()
    bystander = Hold(uuid4(), project, "another")
    await consumers.hold(bystander, 3, take_over=False)
    holds = [Hold(uuid4(), project, "c") for _ in range(3)]
    for name, *values in steps:
        found: object = None
        try:
            if name == "hold":
                who, position, take_over = values
                found = await consumers.hold(holds[who], position, take_over=take_over)
            elif name == "renew":
                found = holds[values[0]].id in await consumers.renew([bystander, holds[values[0]]])
            elif name == "release":
                await consumers.release(holds[values[0]])
            elif name == "ack":
                found = (await consumers.ack(project, "c", values[0], rewind=values[1])).position
            elif name == "delete":
                await consumers.delete(project, "c")
            else:
                await lapse(database, project)
                await consumers.renew([bystander])
                model.lapsed = True
        except NimbusError as error:
            found = error.reason
        if name != "lapse":
            assert found == getattr(model, name)(*values), (name, values)
        listed = {c.name: (c.position, c.lag, c.active) for c in await consumers.of_project(project)}
        expected = {"another": (3, EVENTS - 3, True)}
        if model.position is not None:
            active = model.holder is not None and not model.lapsed
            expected["c"] = (model.position, max(EVENTS - model.position, 0), active)
        assert listed == expected


async def test_of_many_at_once_one_gets_the_consumer(database: Database) -> None:
    project, consumers = await new_log(database), ConsumerStore(database)
    for n in range(5):
        if n == 4:
            await lapse(database, project)
        name = f"c{min(n, 3)}"
        tries = [consumers.hold(Hold(uuid4(), project, name), 5, take_over=False) for _ in range(12)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert [r for r in results if r == 5] == [5]
        assert {r.reason for r in results if isinstance(r, NimbusError)} == {Reason.CONSUMER_BUSY}
    holds = [Hold(uuid4(), project, "c0") for _ in range(12)]
    assert await asyncio.gather(*(consumers.hold(hold, 0, take_over=True) for hold in holds)) == [5] * 12
    assert len(await consumers.renew(holds)) == 1


async def test_a_project_has_no_more_consumers_than_are_listed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_store, "LIST_MAX", 2)
    project, store = await new_log(database), ConsumerStore(database)
    for name in ("a", "b"):
        await store.hold(Hold(uuid4(), project, name), 0, take_over=False)
    with pytest.raises(NimbusError, check=lambda error: error.reason is Reason.FIELD_INVALID):
        await store.hold(Hold(uuid4(), project, "c"), 0, take_over=True)
    await store.delete(project, "a")
    assert await store.hold(Hold(uuid4(), project, "c"), 3, take_over=False) == 3


async def test_a_project_that_is_gone_has_no_consumers(database: Database) -> None:
    with pytest.raises(NimbusError, check=lambda error: error.reason is Reason.PROJECT_NOT_FOUND):
        await ConsumerStore(database).hold(Hold(uuid4(), uuid4(), "c"), 0, take_over=False)


async def test_acked_at_is_when_the_position_moved(database: Database) -> None:
    project, store = await new_log(database), ConsumerStore(database)
    await store.hold(Hold(uuid4(), project, "c"), 5, take_over=False)
    first = await store.ack(project, "c", 5, rewind=True)
    assert (await store.ack(project, "c", 4, rewind=False)).acked_at == first.acked_at
    back = await store.ack(project, "c", 4, rewind=True)
    assert back.acked_at > first.acked_at
    assert (await store.ack(project, "c", 6, rewind=False)).acked_at > back.acked_at
