"""Erases a person: out of the log, and out of every segment, which is written anew without them.

From its first transaction on no question sees the events. Whatever happens then, it is finished by doing it again.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from nimbus_server.segments.compact import MEMORY_BYTES, THREADS
from nimbus_server.segments.disk import require_room
from nimbus_server.segments.manifest import Erasure, IdentityField, Segment, segment_path
from nimbus_server.segments.store import SegmentStore, StaleError
from nimbus_server.segments.upkeep_store import UpkeepStore
from nimbus_server.segments.workbench import Workbench, run

# Positions that one transaction deletes from.
POSITIONS_STEP = 100_000


class Eraser:
    """Erases from the log, and from the segments in `folder`."""

    def __init__(self, store: SegmentStore, upkeep: UpkeepStore, folder: Path) -> None:
        self._store = store
        self._upkeep = upkeep
        self._folder = folder

    async def erase(self, project_id: UUID, field: IdentityField, value: str) -> int:
        """Erase the events that are in the log by now and whose `field` has this value; return how many there were.

        Later events of the same person stay. Raises what Database.transaction does, PROJECT_NOT_FOUND and
        StorageError: then the events are hidden, and `finish` goes on.
        """
        await self._store.mark(project_id)
        await self._upkeep.begin_erasure(project_id, field, value)
        return await self.finish(project_id)

    async def finish(self, project_id: UUID) -> int:
        """Finish all erasures of a project that are under way; return how many events they deleted from the log.

        Raises what Database.transaction does, and StorageError.
        """
        erasures = await self._upkeep.erasures(project_id)
        if not erasures:
            return 0
        deleted = 0
        for erasure in erasures:
            for after in range(0, erasure.upto, POSITIONS_STEP):
                deleted += await self._upkeep.erase(
                    project_id, erasure, after, min(after + POSITIONS_STEP, erasure.upto)
                )
        # An export that read the log before must not publish. What is published by now is rewritten.
        await self._upkeep.new_epoch(project_id)
        await self._rewrite_all(project_id, erasures)
        for erasure in erasures:
            await self._upkeep.end_erasure(project_id, erasure)
        return deleted

    async def _rewrite_all(self, project_id: UUID, erasures: Sequence[Erasure]) -> None:
        clean: set[UUID] = set()
        while True:
            epoch, live = await self._store.live(project_id)
            left = [segment for segment in live if segment.id not in clean]
            if not left:
                return
            for segment in left:
                # Where a compaction was faster, what it wrote is looked at next.
                with suppress(StaleError):
                    if await self._rewrite(project_id, epoch, segment, erasures):
                        clean.add(segment.id)

    async def _rewrite(self, project_id: UUID, epoch: int, segment: Segment, erasures: Sequence[Erasure]) -> bool:
        """Rewrite a segment without the events; True where it has none of them."""
        with Workbench(self._folder, THREADS, MEMORY_BYTES) as bench:
            if await run(bench, lambda: self._is_clean(bench, project_id, segment, erasures)):
                return True
            require_room(self._folder)
            written = await run(bench, self._writing(bench, project_id, segment, erasures))
            try:
                await self._store.replace(project_id, epoch, [segment], written)
            except StaleError:
                bench.discard(project_id, written)
                raise
        return False

    def _is_clean(self, bench: Workbench, project_id: UUID, segment: Segment, erasures: Sequence[Erasure]) -> bool:
        bench.load_segments([segment_path(self._folder, project_id, segment.id)])
        kept = " AND ".join(erasure.kept for erasure in erasures)
        return not bench.fetch(f"SELECT 1 FROM log WHERE NOT ({kept}) LIMIT 1")  # noqa: S608 - quoted

    def _writing(
        self, bench: Workbench, project_id: UUID, segment: Segment, erasures: Sequence[Erasure]
    ) -> Callable[[], list[Segment]]:
        def write() -> list[Segment]:
            path = segment_path(self._folder, project_id, segment.id)
            bench.load_segments([path], [erasure.kept for erasure in erasures])
            rest = bench.write(project_id)
            return [rest] if rest else []

        return write
