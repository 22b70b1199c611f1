"""Deletes the files that nobody reads any more."""

import asyncio
import shutil
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import structlog

from nimbus_server.clock import Clock
from nimbus_server.postgres.retention import kept_since
from nimbus_server.segments.manifest import segment_path
from nimbus_server.segments.upkeep_store import UpkeepStore
from nimbus_server.segments.workbench import SPILL_PREFIX

log = structlog.get_logger(__name__)

# No question takes longer.
RETIRED_FOR = timedelta(minutes=10)
# What no manifest names may still be being written, or published, if it is not as old as that.
ORPHANED_SECONDS = 3600.0


class Cleaner:
    """Cleans up `folder`; events older than `retention_days`, where given, are no longer kept."""

    def __init__(self, upkeep: UpkeepStore, folder: Path, clock: Clock, retention_days: int | None) -> None:
        self._upkeep = upkeep
        self._folder = folder
        self._clock = clock
        self._retention_days = retention_days

    async def clean(self) -> int:
        """Delete what is to be deleted, and return how many files that were. Raises what Database.transaction does."""
        if self._retention_days is not None:
            await self._upkeep.retire_before(kept_since(self._clock(), self._retention_days))
        deleted = 0
        for project_id, segment_id in await self._upkeep.retired(RETIRED_FOR):
            # The file first: the other way around, a crash between would leave one that nothing names.
            deleted += _delete(segment_path(self._folder, project_id, segment_id))
            await self._upkeep.forget(project_id, segment_id)
        for project_id in await asyncio.to_thread(_projects, self._folder):
            deleted += await self._orphans(project_id)
        await asyncio.to_thread(_delete_spills, self._folder)
        if deleted:
            log.info("deleted segments", files=deleted)
        return deleted

    async def _orphans(self, project_id: UUID) -> int:
        """Delete the files of a project that no manifest names; all, if the project is gone."""
        folder = self._folder / str(project_id)
        # Listed before it is asked: what is published in between is known.
        old = [path for path in await asyncio.to_thread(_files, folder) if _is_old(path)]
        known = await self._upkeep.known(project_id)
        if known is None:
            files = await asyncio.to_thread(_files, folder)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            return len(files)
        names = {segment_path(self._folder, project_id, segment_id).name for segment_id in known}
        return sum(_delete(path) for path in old if path.name not in names)


def _projects(folder: Path) -> list[UUID]:
    found = []
    for path in _files(folder):
        try:
            found.append(UUID(path.name))
        except ValueError:
            continue
    return found


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ORPHANED_SECONDS
    except FileNotFoundError:
        return False


def _delete(path: Path) -> int:
    """Delete a file; 0 where it is gone already."""
    try:
        path.unlink()
    except FileNotFoundError:
        return 0
    return 1


def _delete_spills(folder: Path) -> None:
    """What DuckDB instances that were killed have left."""
    for path in _files(folder):
        if path.name.startswith(SPILL_PREFIX) and _is_old(path):
            shutil.rmtree(path, ignore_errors=True)
