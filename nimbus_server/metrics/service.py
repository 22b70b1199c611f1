"""MetricsService: numbers over time over gRPC."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice, takewhile
from uuid import UUID

from nimbus.v1 import metrics_service_pb2 as pb
from nimbus_server.accounts.caller import caller
from nimbus_server.clock import Clock, now
from nimbus_server.errors import Reason, field_error
from nimbus_server.ingest.event import NAME_LENGTH_MAX
from nimbus_server.metrics.bucket import CALENDAR, EARLIEST, FIXED, TICK, Bucket, CalendarBucket
from nimbus_server.metrics.store import MetricsStore, Point, SeriesQuery
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.rpc.fields import filter_field, int_field, time_field, timestamp, uuid_field, zone_field

METRIC = "events.count"
BUCKET_DEFAULT = "1h"
LIMIT_DEFAULT = 100
LIMIT_MAX = 10_000
LIMIT_MAX_BY_NAME = 1000


class MetricsService:
    """Implements nimbus.v1.MetricsService. Errors are those that the proto names for each RPC."""

    def __init__(self, access: ProjectAccess, store: MetricsStore, clock: Clock = now) -> None:
        self._access = access
        self._store = store
        self._clock = clock

    async def QueryMetrics(self, request: pb.QueryMetricsRequest) -> pb.QueryMetricsResponse:
        project = uuid_field("project_id", request.project_id)
        await self._access.require(caller(), project)
        bucket = await self._bucket(project, request)
        fills = _choice("fill", request.fill, "zero")
        by_name = _choice("group_by", request.group_by, "name")
        limit = request.limit if request.HasField("limit") else LIMIT_DEFAULT
        query = SeriesQuery(
            project_id=project,
            bucket=bucket,
            limit=int_field("limit", limit, 1, LIMIT_MAX_BY_NAME if by_name else LIMIT_MAX),
            start=bucket.floor(time_field("start", request.start)) if request.HasField("start") else None,
            end=bucket.ceil(time_field("end", request.end)) if request.HasField("end") else None,
            names=filter_field("name", request.name, NAME_LENGTH_MAX),
            by_name=by_name,
        )
        starts = self._all_starts(query) if fills else []
        if starts:
            query = replace(query, start=starts[0], end=bucket.ceil(starts[-1] + TICK))
        counts = await self._store.newest(query)
        return pb.QueryMetricsResponse(
            metric=METRIC,
            bucket=bucket.name,
            timezone=bucket.zone.key if isinstance(bucket, CalendarBucket) else "UTC",
            series=_series(counts.points, starts),
            groups=[pb.MetricGroup(name=name, series=_series(counts.names[name], starts)) for name in counts.names],
        )

    async def _bucket(self, project: UUID, request: pb.QueryMetricsRequest) -> Bucket:
        name = request.bucket or BUCKET_DEFAULT
        zone = zone_field("timezone", request.timezone) if request.timezone else None
        if name in FIXED:
            return FIXED[name]
        if name not in CALENDAR:
            known = ", ".join([*FIXED, *CALENDAR])
            raise field_error(Reason.FIELD_INVALID, "bucket", f"bucket must be one of {known}.")
        return CalendarBucket(name, zone or zone_field("timezone", await self._access.timezone(project)))

    def _all_starts(self, query: SeriesQuery) -> list[datetime]:
        """Starts of the newest buckets of the range, empty or not, oldest first."""
        if query.end == EARLIEST:
            return []
        starts = query.bucket.backwards(self._clock() if query.end is None else query.end - TICK)
        return [*islice(takewhile(lambda ts: query.start is None or ts >= query.start, starts), query.limit)][::-1]


def _choice(name: str, value: str, chosen: str) -> bool:
    """Whether an option that has one value is set."""
    if value not in {"", chosen}:
        raise field_error(Reason.FIELD_INVALID, name, f"{name} must be {chosen}, or left out.")
    return bool(value)


def _series(points: Sequence[Point], starts: Sequence[datetime]) -> list[pb.MetricPoint]:
    """The points, or where `starts` are given, a point for each of them."""
    counts = dict.fromkeys(starts, 0) | {point.ts: point.count for point in points}
    return [pb.MetricPoint(ts=timestamp(ts), value=float(count)) for ts, count in counts.items()]
