"""Whatever is sent, however often and however it is cut into requests: the log is what a simple model says it is."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from log_model import GIVEN_TIMES, Model, Request, Row, deliveries
from storage import NOW, Count, all_of, counts_of, log_of, new_project, opened, settings_for

from nimbus_server.events.store import Cursor, EventReader, LoggedEvent
from nimbus_server.ingest.decode import Batch, Origin, decode_json
from nimbus_server.ingest.pipeline import Ingest, Receipt
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions


class Sender:
    """Decodes each request as it comes in, a repeated signed one (a replay) each time anew.

    A repeat of an unsigned one is the server's own retry of the batch that it has decoded.
    """

    def __init__(self, ingest: Ingest, project: UUID) -> None:
        self._ingest = ingest
        self._project = project
        self._decoded: dict[int, Batch] = {}

    async def send(self, request: Request, received_at: datetime) -> Receipt:
        origin = Origin(received_at, request.default_ts, request.signature)
        batch = decode_json(request.events, origin)
        if request.signature is None:
            batch = self._decoded.setdefault(id(request), batch)
        return await self._ingest.store(self._project, batch, origin, None)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


def as_row(event: LoggedEvent) -> Row:
    return Row(event.name, event.user_id, event.idempotency_key, event.ts, event.props, event.received_at)


async def check_log(database: Database, project: UUID) -> list[LoggedEvent]:
    """What holds for every log, whatever was sent to it."""
    log = await log_of(database, project)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    minutes = Counter((event.ts.replace(second=0, microsecond=0), event.name) for event in log)
    assert await counts_of(database, project) == {Count(minute, name, n) for (minute, name), n in minutes.items()}
    newest_first = sorted(log, key=lambda event: (event.ts, event.id), reverse=True)
    reader, which = EventReader(database), all_of(project)
    by_offset = [await reader.page(which, 3, offset) for offset in range(0, len(log) + 1, 3)]
    assert [event for page in by_offset for event in page] == newest_first
    by_cursor, after = [], None
    while page := await reader.page(which, 3, after=after):
        by_cursor += page
        after = Cursor(page[-1].ts, page[-1].id)
    assert by_cursor == newest_first
    assert await reader.count(which) == len(log)
    return log


def identities(rows: Sequence[Row]) -> Counter[tuple[Any, ...]]:
    """Rows without what depends on which of several requests came first."""
    return Counter(
        (r.name, r.user_id, r.key, r.ts if r.ts in GIVEN_TIMES else "default")
        if r.key
        else (r.name, r.user_id, r.ts, r.props["n"])
        for r in rows
    )


WITH_ONE_DATABASE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(deliveries())
@settings(WITH_ONE_DATABASE, max_examples=80)
async def test_one_request_after_the_other_the_log_is_the_models(database: Database, sent: list[Request]) -> None:
    project = await new_project(database)
    sender, model = Sender(Ingest(EventLog(database, Partitions(database))), project), Model()
    for second, request in enumerate(sent):
        received_at = NOW + timedelta(seconds=second)
        receipt = await sender.send(request, received_at)
        told = (receipt.accepted, receipt.duplicates, [refusal.index for refusal in receipt.refusals])
        assert told == model.deliver(request, received_at)
    log = await check_log(database, project)
    assert [as_row(event) for event in log] == list(model.rows.values())


@given(deliveries())
@settings(WITH_ONE_DATABASE, max_examples=80)
async def test_all_requests_at_once_the_log_is_the_models_but_for_who_came_first(
    database: Database, sent: list[Request]
) -> None:
    project = await new_project(database)
    sender, model, seconds = Sender(Ingest(EventLog(database, Partitions(database))), project), Model(), count()
    receipts = await asyncio.gather(*(sender.send(r, NOW + timedelta(seconds=next(seconds))) for r in sent))
    for request, receipt in zip(sent, receipts, strict=True):
        *_, refused = model.deliver(request, NOW)
        assert receipt.accepted + receipt.duplicates + len(receipt.refusals) == len(request.events)
        assert [refusal.index for refusal in receipt.refusals] == refused
    log = await check_log(database, project)
    assert identities([as_row(event) for event in log]) == identities(list(model.rows.values()))
    assert sum(receipt.accepted for receipt in receipts) == len(log)


@given(deliveries())
@settings(WITH_ONE_DATABASE, max_examples=40)
async def test_one_projects_events_are_never_in_anothers_log(database: Database, sent: list[Request]) -> None:
    """Events with the same identities go to two projects, to one of them not all: neither sees the other's."""
    projects = [await new_project(database), await new_project(database)]
    ingest, models = Ingest(EventLog(database, Partitions(database))), [Model(), Model()]
    senders = [Sender(ingest, project) for project in projects]
    for n, request in enumerate(sent):
        for which in (0, 1) if n % 2 else (0,):
            await senders[which].send(request, NOW)
            models[which].deliver(request, NOW)
    for project, model in zip(projects, models, strict=True):
        log = await check_log(database, project)
        assert [as_row(event) for event in log] == list(model.rows.values())
