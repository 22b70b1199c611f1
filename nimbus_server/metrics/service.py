"""MetricsService: numbers over time over gRPC."""

from nimbus.v1 import metrics_service_pb2 as pb
from nimbus_server.accounts.caller import caller
from nimbus_server.errors import Reason, field_error
from nimbus_server.ingest.event import NAME_LENGTH_MAX
from nimbus_server.metrics.bucket import BUCKETS
from nimbus_server.metrics.store import MetricsStore, SeriesQuery
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.rpc.fields import filter_field, int_field, time_field, timestamp, uuid_field

METRIC = "events.count"
BUCKET_DEFAULT = "1h"
LIMIT_DEFAULT = 100
LIMIT_MAX = 10_000


class MetricsService:
    """Implements nimbus.v1.MetricsService. Errors are those that the proto names for each RPC."""

    def __init__(self, access: ProjectAccess, store: MetricsStore) -> None:
        self._access = access
        self._store = store

    async def QueryMetrics(self, request: pb.QueryMetricsRequest) -> pb.QueryMetricsResponse:
        project = uuid_field("project_id", request.project_id)
        await self._access.require(caller(), project)
        bucket = BUCKETS.get(request.bucket or BUCKET_DEFAULT)
        if bucket is None:
            raise field_error(Reason.FIELD_INVALID, "bucket", f"bucket must be one of {', '.join(BUCKETS)}.")
        limit = request.limit if request.HasField("limit") else LIMIT_DEFAULT
        query = SeriesQuery(
            project_id=project,
            bucket=bucket,
            limit=int_field("limit", limit, 1, LIMIT_MAX),
            start=bucket.floor(time_field("start", request.start)) if request.HasField("start") else None,
            end=bucket.ceil(time_field("end", request.end)) if request.HasField("end") else None,
            names=filter_field("name", request.name, NAME_LENGTH_MAX),
        )
        points = await self._store.newest(query)
        return pb.QueryMetricsResponse(
            metric=METRIC,
            bucket=bucket.name,
            series=[pb.MetricPoint(ts=timestamp(point.ts), value=float(point.count)) for point in points],
        )
