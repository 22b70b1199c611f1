"""Exports a log: its next range of positions becomes segments, and the mark moves on in the same transaction."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from nimbus_server.clock import Clock
from nimbus_server.segments.disk import require_room
from nimbus_server.segments.manifest import Segment
from nimbus_server.segments.store import SegmentStore, StaleError
from nimbus_server.segments.workbench import Workbench, run

POSITIONS_MAX = 250_000
THREADS, MEMORY_BYTES = 2, 384 * 1024**2
# Events that come late have segments of their own: among those of their day they would spoil the times of a segment,
# by which questions leave segments out.
LATE = timedelta(days=2)


class Exporter:
    """Makes segments in `folder` of what the log behind `conninfo` has; both for plain libpq and DuckDB."""

    def __init__(self, store: SegmentStore, conninfo: str, folder: Path, clock: Clock) -> None:
        self._store = store
        self._conninfo = conninfo
        self._folder = folder
        self._clock = clock

    async def export(self, project_id: UUID, positions_max: int = POSITIONS_MAX) -> int:
        """Export up to so many positions, and return how many it were.

        Raises what Database.transaction does, PROJECT_NOT_FOUND, StaleError, StorageError and LogAwayError; nothing
        has changed then.
        """
        mark = await self._store.mark(project_id)
        # Read before the events are, in a statement of its own: whatever lies up to it is there to be read.
        upto = min(mark.log_end, mark.exported + positions_max)
        if upto == mark.exported:
            return 0
        require_room(self._folder)
        with Workbench(self._folder, THREADS, MEMORY_BYTES) as bench:
            segments = await run(bench, self._writing(bench, project_id, mark.exported, upto))
            try:
                await self._store.publish(project_id, mark, upto, segments)
            except StaleError:
                # After any other error it is not known whether they count by now.
                bench.discard(project_id, segments)
                raise
        return upto - mark.exported

    def _writing(self, bench: Workbench, project_id: UUID, after: int, upto: int) -> Callable[[], list[Segment]]:
        late = f"ts < make_timestamp({int((self._clock() - LATE).timestamp()) * 1_000_000})"

        def write() -> list[Segment]:
            bench.load_log(self._conninfo, project_id, after, upto)
            found = (bench.write(project_id, where) for where in (late, f"NOT {late}"))
            return [segment for segment in found if segment is not None]

        return write
