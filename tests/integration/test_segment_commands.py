"""`nimbus segments` shows how far the segments are, and has them made anew."""

import asyncio
import os
import sys
from pathlib import Path
from uuid import uuid4

from segment_files import Event, exporter_of, put
from storage import new_project, opened, settings_for

from nimbus_server.clock import now
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions


async def nimbus(dsn: str, *arguments: str) -> tuple[int | None, str]:
    """Exit status and output of the command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nimbus_server", "segments", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"NIMBUS_DATABASE_URL": dsn},
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_status_shows_each_projects_lag_and_rebuild_brings_it_back(dsn: str, tmp_path: Path) -> None:
    async with opened(Database(settings_for(dsn))) as database:
        assert await nimbus(dsn, "status") == (0, "No project has events yet.\n")
        await Partitions(database).ensure_ahead(now())
        project = await new_project(database)
        await put(database, project, [Event() for _ in range(1200)])
        await exporter_of(dsn, database, tmp_path).export(project, 1000)
    status, shown = await nimbus(dsn, "status")
    assert status == 0
    assert shown.splitlines()[1].split()[:6] == [str(project), "1,000", "1,200", "200", "1", "1,000"]
    status, told = await nimbus(dsn, "rebuild", str(uuid4()))
    assert (status, "project" in told) == (1, True)
    status, told = await nimbus(dsn, "rebuild", str(project))
    assert (status, told.split(".")[0]) == (0, "Gave up 1 segments")
    _, shown = await nimbus(dsn, "status")
    assert shown.splitlines()[1].split()[:6] == [str(project), "0", "1,200", "1,200", "0", "0"]
