"""Keeps the segments of all projects behind their logs: exports, compacts, cleans up.

One export and one compaction at a time. Keepers of several hosts on the same database and files only do work twice.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from uuid import UUID

import structlog

from nimbus_server.clock import now
from nimbus_server.errors import NimbusError
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import plain_conninfo
from nimbus_server.segments.cleanup import Cleaner
from nimbus_server.segments.compact import Compactor
from nimbus_server.segments.disk import StorageError
from nimbus_server.segments.erase import Eraser
from nimbus_server.segments.export import Exporter
from nimbus_server.segments.manifest import segments_folder
from nimbus_server.segments.store import SegmentStore, StaleError
from nimbus_server.segments.upkeep_store import UpkeepStore
from nimbus_server.segments.workbench import LogAwayError
from nimbus_server.settings import Settings

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
# A log is exported once it has so many events that are not, or had the smaller number of them for so long.
EXPORT_AT_ONCE, EXPORT_SOON = 50_000, 5_000
SOON_SECONDS, ANY_SECONDS = 30.0, 600.0
UPKEEP_SECONDS = 10.0
CLEAN_SECONDS = 60.0
# While the disk is full or the database is away; and for a project whose export fails.
PAUSE_SECONDS, FAILED_SECONDS = 5.0, 60.0


class Cadence:
    """Which project to export next. `seconds` is a clock that only moves forward."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._behind_since: dict[UUID, float] = {}

    def due(self, lags: Mapping[UUID, int]) -> UUID | None:
        """The project whose turn it is, given how many events of each are in no segment; None if none is due."""
        at = self._seconds()
        self._behind_since = {project_id: self._behind_since.get(project_id, at) for project_id in lags}
        due = [project_id for project_id, lag in lags.items() if _is_due(lag, at - self._behind_since[project_id])]
        return min(due, key=self._behind_since.__getitem__, default=None)

    def took_turn(self, project_id: UUID, after_seconds: float = 0) -> None:
        """Let others be first, and this one wait for so long at least."""
        self._behind_since[project_id] = self._seconds() + after_seconds


def _is_due(lag: int, seconds: float) -> bool:
    return seconds >= 0 and (
        lag >= EXPORT_AT_ONCE or (lag >= EXPORT_SOON and seconds >= SOON_SECONDS) or seconds >= ANY_SECONDS
    )


class Keeper:
    """Call `run` for as long as the analyst runs."""

    def __init__(self, database: Database, settings: Settings) -> None:
        dsn = settings.database_url.get_secret_value() if settings.database_url else ""
        folder = segments_folder(Path(settings.data_dir).expanduser().resolve())
        self._store, self._upkeep = SegmentStore(database), UpkeepStore(database)
        self._exporter = Exporter(self._store, plain_conninfo(dsn, "nimbus segments"), folder, now)
        self._compactor = Compactor(self._store, folder, now)
        self._eraser = Eraser(self._store, self._upkeep, folder)
        self._cleaner = Cleaner(self._upkeep, folder, now, settings.retention_days)
        self._cadence = Cadence()
        self._unwritable = False
        self._cleaned_at = float("-inf")

    async def run(self) -> None:
        """Export, compact and clean up, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forever(self._export, POLL_SECONDS))
            tasks.create_task(self._forever(self._keep_up, UPKEEP_SECONDS))

    async def _export(self) -> bool:
        """Export a range of the project whose turn it is; False if none is due."""
        project_id = self._cadence.due(await self._store.lags())
        if project_id is None:
            return False
        self._cadence.took_turn(project_id)
        try:
            await self._exporter.export(project_id)
        except (NimbusError, StaleError, StorageError, LogAwayError):
            raise
        except Exception:
            # What is wrong with one project's events must not stop the others.
            self._cadence.took_turn(project_id, FAILED_SECONDS)
            log.exception("export failed", project_id=str(project_id), again_in_seconds=FAILED_SECONDS)
        if self._unwritable:
            self._unwritable = False
            log.info("segments can be written again")
        return True

    async def _keep_up(self) -> bool:
        """Clean up, finish erasures and merge segments; False if there was nothing to merge."""
        if time.monotonic() - self._cleaned_at > CLEAN_SECONDS:
            await self._cleaner.clean()
            self._cleaned_at = time.monotonic()
        await self._each(await self._upkeep.with_erasures(), self._eraser.finish)
        several = [status.project_id for status in await self._store.status() if status.files > 1]
        return await self._each(several, self._compactor.compact) > 0

    async def _each(self, project_ids: Iterable[UUID], work: Callable[[UUID], Awaitable[int]]) -> int:
        """The sum of what the work returns: what is wrong with one project must not stop the others.

        Raises the first NimbusError, StaleError or StorageError, after the others had their turn.
        """
        done, failed = 0, None
        for project_id in project_ids:
            try:
                done += await work(project_id)
            except (NimbusError, StaleError, StorageError) as error:
                failed = failed or error
            except Exception:
                log.exception("upkeep of segments failed", project_id=str(project_id))
        if failed:
            raise failed
        return done

    async def _forever(self, step: Callable[[], Awaitable[bool]], idle_seconds: float) -> None:
        while True:
            pause = idle_seconds
            try:
                if await step():
                    pause = 0
            except StaleError as error:
                log.info("another keeper was faster", error=str(error))
            except StorageError as error:
                pause = PAUSE_SECONDS
                if not self._unwritable:
                    self._unwritable = True
                    log.warning(
                        "segments can't be written, and questions read the log until they can", error=str(error)
                    )
            except LogAwayError as error:
                pause = PAUSE_SECONDS
                log.warning("the log can't be read", error=str(error))
            except NimbusError:
                pause = PAUSE_SECONDS  # the database is away, as its own log line says, or a project was just deleted
            except Exception:
                pause = PAUSE_SECONDS
                log.exception("keeping segments failed")
            await asyncio.sleep(pause)
