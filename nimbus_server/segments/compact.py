"""Compaction: few large segments in place of many small ones, each of one UTC day or month where that can be had.

A question opens every segment that overlaps its range of time. Recent days have their own segments, older months too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from nimbus_server.clock import Clock, micros
from nimbus_server.segments.disk import require_room
from nimbus_server.segments.manifest import Segment, segment_path
from nimbus_server.segments.store import SegmentStore, StaleError
from nimbus_server.segments.workbench import Workbench, run

THREADS, MEMORY_BYTES = 1, 384 * 1024**2
# What has as many events, or as many bytes, is left as it is; what is smaller is merged up to the larger ones.
SMALL_ROWS, SMALL_BYTES = 1_000_000, 256 * 1024**2
MERGED_ROWS_MAX, MERGED_BYTES_MAX = 4_000_000, 1024**3
# While more of them may come, so many small ones are worth a merge.
SEGMENTS_MIN = 8
# A day or month is over so long after its end: most late events have come.
LATENESS = timedelta(hours=2)
# Days that are longer ago share segments with others of their month.
DAYS_APART = timedelta(days=35)
# Of segments that span several days or months, those periods get their own that have as many events.
SPLIT_ROWS_MIN = 50_000


@dataclass(frozen=True, slots=True)
class Period:
    """A day or a month in UTC, as segments are kept apart; `end` is exclusive."""

    start: datetime
    end: datetime


def period_of(ts: datetime, now: datetime) -> Period:
    """The period in which an event of this time belongs."""
    day = ts.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = day.replace(day=1)
    after = (month + timedelta(days=32)).replace(day=1)
    if after > now - DAYS_APART:
        return Period(day, day + timedelta(days=1))
    return Period(month, after)


def choose(segments: Sequence[Segment], now: datetime) -> tuple[Period | None, list[Segment]]:
    """The segments that are to be merged next, none if there is nothing to gain.

    With the period in which all of them lie, or None where each of them spans several.
    """
    groups: dict[Period | None, list[Segment]] = {}
    for segment in segments:
        if segment.rows < SMALL_ROWS and segment.bytes < SMALL_BYTES:
            first = period_of(segment.ts_min, now)
            groups.setdefault(first if segment.ts_max < first.end else None, []).append(segment)
    for period, group in groups.items():
        is_over = period is not None and period.end + LATENESS < now
        if len(group) >= (2 if is_over else SEGMENTS_MIN):
            return period, _that_fit(group)
    return None, []


class Compactor:
    """Compacts the segments in `folder`."""

    def __init__(self, store: SegmentStore, folder: Path, clock: Clock) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock

    async def compact(self, project_id: UUID) -> int:
        """Merge some segments of a project, and return how many; 0 where nothing is to be gained.

        Raises what Database.transaction does, StaleError and StorageError; nothing has changed then.
        """
        epoch, live = await self._store.live(project_id)
        now = self._clock()
        period, old = choose(live, now)
        if not old:
            return 0
        require_room(self._folder)
        with Workbench(self._folder, THREADS, MEMORY_BYTES) as bench:
            merged = await run(bench, self._merging(bench, project_id, old, None if period else now))
            try:
                await self._store.replace(project_id, epoch, old, merged)
            except StaleError:
                bench.discard(project_id, merged)
                raise
        return len(old)

    def _merging(
        self, bench: Workbench, project_id: UUID, old: Sequence[Segment], split_at: datetime | None
    ) -> Callable[[], list[Segment]]:
        def merge() -> list[Segment]:
            bench.load_segments([segment_path(self._folder, project_id, segment.id) for segment in old])
            parts = ["TRUE"] if split_at is None else _parts(bench, split_at)
            return [merged for part in parts if (merged := bench.write(project_id, part)) is not None]

        return merge


def _that_fit(group: Sequence[Segment]) -> list[Segment]:
    """The smallest of a group, as many as one segment may hold."""
    chosen: list[Segment] = []
    rows = size = 0
    for segment in sorted(group, key=lambda segment: segment.rows):
        rows, size = rows + segment.rows, size + segment.bytes
        if rows > MERGED_ROWS_MAX or size > MERGED_BYTES_MAX:
            break
        chosen.append(segment)
    return chosen


def _parts(bench: Workbench, now: datetime) -> list[str]:
    """Conditions, in SQL: one for each period with many events, and one for the rest."""
    days = bench.fetch("SELECT time_bucket(INTERVAL 1 DAY, ts), count(*) FROM log GROUP BY ALL ORDER BY ALL")
    rows: dict[Period, int] = {}
    for day, count in days:
        period = period_of(day.replace(tzinfo=UTC), now)
        rows[period] = rows.get(period, 0) + count
    within = [
        f"(ts >= make_timestamp({micros(period.start)}) AND ts < make_timestamp({micros(period.end)}))"
        for period, count in rows.items()
        if count >= SPLIT_ROWS_MIN
    ]
    return [*within, f"NOT ({' OR '.join(within) or 'FALSE'})"]
