"""Segments hold the log, event for event."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from segment_files import Event, exporter_of, file_rows, log_rows, put
from storage import new_project, opened, settings_for

from nimbus_server.clock import now
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.segments.store import SegmentStore


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        await Partitions(pool).ensure_ahead(now() - timedelta(days=40))
        yield pool


async def test_an_export_holds_the_log_event_for_event(dsn: str, database: Database, tmp_path: Path) -> None:
    project, store = await new_project(database), SegmentStore(database)
    events = [
        Event({"plan": "pro", "n": i, "é": [1, {"x": None}]}, {"page": {"path": "/"}}, user_id=f"u{i % 7}")
        for i in range(500)
    ]
    await put(database, project, events)
    assert await exporter_of(dsn, database, tmp_path).export(project) == 500
    snapshot = await store.snapshot(project)
    assert (snapshot.exported, snapshot.log_end) == (500, 500)
    assert file_rows(tmp_path, project, snapshot.segments) == await log_rows(database, project)
    assert snapshot.segments[0].columns == {"context.page.path": "s", "props.n": "n", "props.plan": "s", "props.é": "j"}
