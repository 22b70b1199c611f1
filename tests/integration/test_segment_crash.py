"""Whoever is killed, and whenever: no event is missing from segments and log together, and none is there twice.

The soak test does the same for longer.
"""

from datetime import timedelta
from pathlib import Path

from segment_crash import Crashes
from storage import new_project, opened, settings_for

from nimbus_server.clock import now
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions


async def test_segments_and_log_agree_while_their_writers_are_killed(dsn: str, tmp_path: Path) -> None:
    async with opened(Database(settings_for(dsn))) as database:
        for days in (40, 10, 0):
            await Partitions(database).ensure_ahead(now() - timedelta(days=days))
        crashes = Crashes(dsn, database, tmp_path / "segments", await new_project(database))
        await crashes.run(seconds=0, kills=8)
    assert crashes.wrong == []
    assert crashes.checks > 3
    assert crashes.segments_made > 3
