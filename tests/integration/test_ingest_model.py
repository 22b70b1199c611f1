"""Whatever is sent, however often and however it is cut into requests: the log is what a simple model says it is."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from hypothesis import given, settings
from log_checks import WITH_ONE_DATABASE, Sender, as_row, check_log, told
from log_model import Model, Request, deliveries
from storage import NOW, new_project, opened, running_ingest, settings_for

from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.postgres.database import Database

A_QUARTER = timedelta(seconds=0.25)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


@pytest.fixture
async def ingest(database: Database) -> AsyncIterator[Ingest]:
    async with running_ingest(database) as running:
        yield running


@given(deliveries())
@settings(WITH_ONE_DATABASE, max_examples=50)
async def test_one_request_after_the_other_the_log_is_the_models(
    database: Database, ingest: Ingest, sent: list[Request]
) -> None:
    project = await new_project(database)
    sender, model = Sender(project), Model()
    for second, request in enumerate(sent):
        received_at = NOW + timedelta(seconds=second) + A_QUARTER
        batch, receipt = await sender.send(ingest, request, received_at)
        expected = model.deliver(request, received_at)
        assert told(batch, receipt.stored) == expected
        assert (receipt.accepted, receipt.duplicates) == (len(expected.stored), len(expected.duplicates))
        assert receipt.refusals == batch.refusals
    log = await check_log(database, project)
    assert [as_row(event) for event in log] == list(model.rows.values())


@given(deliveries())
@settings(WITH_ONE_DATABASE, max_examples=40)
async def test_one_projects_events_are_never_in_anothers_log(
    database: Database, ingest: Ingest, sent: list[Request]
) -> None:
    """Events with the same identities go to two projects, to one of them not all: neither sees the other's."""
    senders, models = [Sender(await new_project(database)) for _ in range(2)], [Model(), Model()]
    for n, request in enumerate(sent):
        for which in (0, 1) if n % 2 else (0,):
            await senders[which].send(ingest, request, NOW + A_QUARTER)
            models[which].deliver(request, NOW + A_QUARTER)
    for sender, model in zip(senders, models, strict=True):
        log = await check_log(database, sender.project)
        assert [as_row(event) for event in log] == list(model.rows.values())
