"""What Prometheus reads."""

import asyncio
import socket
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from segment_files import exporter_of
from storage import append, new_event, new_project, opened, settings_for

from nimbus_server.consumers.store import ConsumerStore, Hold
from nimbus_server.errors import StartupError
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.segments.store import SegmentStore
from nimbus_server.telemetry import gauges
from nimbus_server.telemetry.gauges import Gauges


async def test_lags_are_what_lies_behind_the_positions_of_consumers_and_segments(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "REFRESH_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with opened(Database(settings_for(dsn))) as database:
        project = await new_project(database)
        log, consumers = EventLog(database, Partitions(database)), ConsumerStore(database)
        await append(log, project, [new_event() for _ in range(7)])
        await consumers.hold(Hold(uuid4(), project, "billing"), 2, take_over=False)
        segments = SegmentStore(database)
        shown = Gauges(consumers, segments)
        shown.serve("127.0.0.1", port)
        with pytest.raises(StartupError, match="Set another NIMBUS_METRICS_PORT"):
            Gauges(consumers, segments).serve("127.0.0.1", port)
        refreshing = asyncio.create_task(shown.run())
        try:
            labels = f'{{consumer="billing",project_id="{project}"}}'
            await shows(port, f"nimbus_consumer_lag_events{labels} 5.0", f"nimbus_consumer_active{labels} 1.0")
            await consumers.ack(project, "billing", 6, rewind=False)
            await shows(port, f"nimbus_consumer_lag_events{labels} 1.0")
            of_project = f'{{project_id="{project}"}}'
            await shows(port, f"nimbus_segments_lag_events{of_project} 7.0", f"nimbus_segments_files{of_project} 0.0")
            await exporter_of(dsn, database, tmp_path).export(project)
            await shows(port, f"nimbus_segments_lag_events{of_project} 0.0", f"nimbus_segments_files{of_project} 1.0")
        finally:
            refreshing.cancel()
            shown.close()


async def shows(port: int, *lines: str) -> None:
    """Wait until all of these lines are shown."""
    async with asyncio.timeout(20):
        while True:
            answer = await asyncio.to_thread(requests.get, f"http://127.0.0.1:{port}/metrics", timeout=5)
            if set(lines) <= set(answer.text.splitlines()):
                return
