"""What the log takes it keeps as it came, and once, whoever else writes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from storage import (
    NOW,
    Count,
    all_of,
    counts_of,
    log_of,
    new_project,
    opened,
    origin_of,
    running_ingest,
    settings_for,
)

from nimbus_server.clock import moment
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.events.store import EventReader
from nimbus_server.ingest.decode import Batch, Origin
from nimbus_server.ingest.decode_json import decode_json
from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.postgres.database import Database

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just(""), inner, max_size=3),
    max_leaves=5,
)
EVENTS = st.fixed_dictionaries(
    {"name": TEXTS | st.just("\U0001f600" * 200), "props": st.dictionaries(TEXTS | st.just(""), VALUES, max_size=3)},
    optional={
        "user_id": TEXTS,
        "idempotency_key": TEXTS,
        "ts": st.datetimes(NOW.replace(day=1, tzinfo=None), NOW.replace(tzinfo=None), timezones=st.just(UTC)).map(
            datetime.isoformat
        ),
    },
)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


@pytest.fixture
async def ingest(database: Database) -> AsyncIterator[Ingest]:
    async with running_ingest(database) as running:
        yield running


def batch_of(events: list[dict[str, Any]], origin: Origin) -> Batch:
    batch = decode_json(events, origin)
    assert not batch.refusals
    return batch


def with_floats(value: Any) -> Any:
    """JSON has one kind of number; PostgreSQL writes 1e300 out, and Python reads that as an int."""
    if isinstance(value, dict):
        return {key: with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@given(st.lists(EVENTS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_valid_event_can_be_stored_and_reads_back_as_it_was_sent(
    database: Database, ingest: Ingest, events: list[dict[str, Any]]
) -> None:
    project, origin = await new_project(database), origin_of()
    batch = batch_of(events, origin)
    receipt = await ingest.store(project, batch, origin)
    assert receipt.accepted + receipt.duplicates == len(events)
    stored = {event.id: event for event in await EventReader(database).page(all_of(project), 10)}
    assume(not receipt.duplicates)
    for sent, new in zip(events, batch.events, strict=True):
        event = stored[UUID(bytes=new.id)]
        assert (event.name, event.user_id) == (sent["name"], sent.get("user_id"))
        assert event.idempotency_key == sent.get("idempotency_key")
        assert (event.ts, event.received_at) == (moment(new.ts), NOW)
        assert with_floats(event.props) == with_floats(sent["props"])


@pytest.mark.parametrize("ts", [None, "2025-10-31T23:59:59Z"])
async def test_the_same_keyed_event_from_20_tasks_of_two_workers_is_accepted_once(
    dsn: str, database: Database, ingest: Ingest, ts: str | None
) -> None:
    project = await new_project(database)
    event = {"name": "paid", "user_id": "ada", "idempotency_key": "order-7", "ts": ts}

    async def send(worker: Ingest, n: int) -> tuple[int, int]:
        origin = origin_of(f"{n:064x}", NOW + timedelta(seconds=n))
        receipt = await worker.store(project, batch_of([event, {"name": "seen"}], origin), origin)
        return receipt.accepted, receipt.duplicates

    async with opened(Database(settings_for(dsn))) as other, running_ingest(other) as another:
        workers = [ingest, another]
        receipts = await asyncio.gather(*(send(workers[n % 2], n) for n in range(20)))
    assert sorted(receipts) == [(1, 1)] * 19 + [(2, 0)]
    log = await log_of(database, project)
    assert [e.name for e in log].count("paid") == 1
    assert sorted(e.seq for e in log) == list(range(1, 22))


async def test_a_key_whose_first_ts_was_given_later_by_hand_is_the_same_event(
    database: Database, ingest: Ingest
) -> None:
    project = await new_project(database)
    keyed = {"name": "paid", "idempotency_key": "k"}
    for event, at, accepted in (
        (keyed, NOW, 1),
        (keyed | {"ts": NOW.isoformat()}, NOW + timedelta(seconds=1), 0),
        (keyed | {"ts": (NOW + timedelta(seconds=2)).isoformat()}, NOW + timedelta(seconds=2), 1),
        (keyed, NOW + timedelta(seconds=2), 0),
        (keyed | {"user_id": "ada"}, NOW, 1),
    ):
        origin = origin_of("ab" * 32, at)
        assert (await ingest.store(project, batch_of([event], origin), origin)).accepted == accepted
    assert len(await log_of(database, project)) == 3


async def test_a_project_that_is_not_there_takes_no_events(database: Database, ingest: Ingest) -> None:
    project, origin = uuid4(), origin_of()
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.PROJECT_NOT_FOUND):
        await ingest.store(project, batch_of([{"name": "x", "idempotency_key": "k"}], origin), origin)
    assert await log_of(database, project) == []


async def test_a_full_batch_with_full_props_is_stored(database: Database, ingest: Ingest) -> None:
    project, origin = await new_project(database), origin_of("ab" * 32)
    events = [{"name": "x", "props": {"p": "y" * 10_232}}] * 1000
    assert (await ingest.store(project, batch_of(events, origin), origin)).accepted == 1000
    assert await EventReader(database).count(all_of(project)) == 1000
    assert await counts_of(database, project) == {Count(NOW, "x", 1000)}
