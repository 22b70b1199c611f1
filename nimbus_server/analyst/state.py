"""The state of a log that a question is about."""

from datetime import datetime
from pathlib import Path
from uuid import UUID

from nimbus_server.analyses.question import AsOf, Needs
from nimbus_server.analyst.scan import Scan
from nimbus_server.clock import micros, moment
from nimbus_server.postgres.retention import kept_since
from nimbus_server.segments.store import SegmentStore


async def state(
    store: SegmentStore, folder: Path, retention_days: int | None, project_id: UUID, needs: Needs, now: datetime
) -> tuple[Scan, AsOf]:
    """What the question has to read, and as of when. Raises what SegmentStore.snapshot does.

    `folder` has the segments. `retention_days` is None where events are kept for ever.
    """
    cut = None if retention_days is None else kept_since(now, retention_days)
    start = None if needs.start is None else moment(needs.start)
    end = None if needs.end is None else moment(needs.end)
    snapshot = await store.snapshot(project_id, max(filter(None, (start, cut)), default=None), end)
    scan = Scan(project_id, needs, snapshot, folder, None if cut is None else micros(cut))
    return scan, AsOf(snapshot.log_end, now)
