"""However requests are merged into commits, by however many workers, and whatever connections are lost on the way."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_checks import WITH_ONE_DATABASE, Sender, as_row, check_log, identities, told
from log_model import Model, Request, deliveries
from losing import Losing, Loss, let_lose
from storage import NOW, new_project, opened, running_ingest, settings_for

from nimbus_server.clock import micros
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.commit import Append, Stored
from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions

WORKERS = 3
LOSSES = st.lists(st.sampled_from(Loss), max_size=4)
FIRST_ARRIVAL = NOW + timedelta(seconds=0.25)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    await let_lose(dsn)
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


@pytest.fixture
async def workers(dsn: str, database: Database) -> AsyncIterator[list[tuple[Losing, Ingest]]]:
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(opened(Losing(dsn))) for _ in range(WORKERS)]
        yield [(losing, await stack.enter_async_context(running_ingest(losing))) for losing in databases]


@given(deliveries(), st.data())
@settings(WITH_ONE_DATABASE, max_examples=40)
async def test_all_requests_at_once_the_log_is_the_models_but_for_who_came_first(
    database: Database, workers: list[tuple[Losing, Ingest]], sent: list[Request], data: st.DataObject
) -> None:
    project = await new_project(database)
    sender, model, seconds = Sender(project), Model(), count()
    lost = [data.draw(LOSSES) for _ in workers]
    for (losing, _), losses in zip(workers, lost, strict=True):
        losing.losses = deque(losses)
    by = [workers[data.draw(st.integers(0, WORKERS - 1))][1] for _ in sent]
    arrivals = [FIRST_ARRIVAL + timedelta(seconds=next(seconds)) for _ in sent]
    told_of = await asyncio.gather(*(sender.send(*each) for each in zip(by, sent, arrivals, strict=True)))

    log = await check_log(database, project)
    claimed: Counter[int] = Counter()
    for request, received_at, (batch, receipt) in zip(sent, arrivals, told_of, strict=True):
        assert [refusal.index for refusal in receipt.refusals] == model.deliver(request, received_at).refused
        assert (receipt.accepted, receipt.duplicates) == (len(receipt.stored), len(batch.events) - receipt.accepted)
        ids = {event.place: event.id for event in batch.events}
        for place, seq in receipt.stored.items():
            assert (log[seq - 1].id.bytes, log[seq - 1].received_at) == (ids[place], received_at)
            assert log[seq - 1].props == request.events[place]["props"]
        claimed.update(receipt.stored.values())
        assert set(ids.values()) <= {event.id.bytes for event in log}
    assert identities([as_row(event) for event in log]) == identities(list(model.rows.values()))
    # Nobody is told of what a commit stored whose answer was lost: the next attempt finds duplicates.
    assert set(claimed.values()) <= {1}
    if not any(Loss.AFTER_COMMIT in losses for losses in lost):
        assert claimed.total() == len(log)


@given(deliveries(), st.data())
@settings(WITH_ONE_DATABASE, max_examples=40)
async def test_appends_of_several_projects_in_one_commit_are_what_they_would_be_one_by_one(
    dsn: str, database: Database, sent: list[Request], data: st.DataObject
) -> None:
    """The requests go to either of two projects, some of them to both."""
    senders, models = [Sender(await new_project(database)) for _ in range(2)], [Model(), Model()]
    to_send = [(n, request) for request in sent for n in data.draw(st.sampled_from([(0,), (1,), (0, 1)]))]
    partitions, at = Partitions(database), FIRST_ARRIVAL
    async with opened(Losing(dsn)) as losing:
        log = EventLog(losing, partitions)
        while to_send:
            size = data.draw(st.integers(1, len(to_send)))
            now, to_send = to_send[:size], to_send[size:]
            at += timedelta(seconds=1)
            batches = [senders[n].decode(request, at)[0] for n, request in now]
            appends = [
                Append(senders[n].project, None, b.events, micros(at)) for (n, _), b in zip(now, batches, strict=True)
            ]
            await log.make_partitions([event for batch in batches for event in batch.events])
            loss = data.draw(st.sampled_from(Loss))
            losing.losses = deque([loss])
            try:
                outcomes = await log.append(appends)
            except NimbusError as error:
                if error.reason is not Reason.STORAGE_UNAVAILABLE:
                    raise
                if loss is Loss.AFTER_COMMIT:
                    for n, request in now:
                        models[n].deliver(request, at)
                outcomes = await log.append(appends)
            for (n, request), batch, outcome in zip(now, batches, outcomes, strict=True):
                assert isinstance(outcome, Stored)
                stored = {event.place: seq for seq, event in enumerate(outcome.events, outcome.first_seq)}
                assert told(batch, stored) == models[n].deliver(request, at)
    for sender, model in zip(senders, models, strict=True):
        rows = [as_row(event) for event in await check_log(database, sender.project)]
        assert rows == list(model.rows.values())
