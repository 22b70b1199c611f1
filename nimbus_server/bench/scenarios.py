"""What `nimbus bench` measures, one thing after the other."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from nimbus.v1.event_service_pb2 import ListEventsRequest
from nimbus.v1.metrics_service_pb2 import QueryMetricsRequest
from nimbus_server.bench.calls import grpc_ingest, grpc_query, rest_ingest, stream_ingest
from nimbus_server.bench.events import Requests, as_json, as_proto
from nimbus_server.bench.load import Send
from nimbus_server.bench.target import Target

METRICS_RPC = "/nimbus.v1.MetricsService/QueryMetrics"
LIST_RPC = "/nimbus.v1.EventService/ListEvents"


@dataclass(frozen=True, slots=True)
class Load:
    """How much at once: connections of single events, calls in flight of batches, and events in a batch."""

    connections: int
    in_flight: int
    batch: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load, what to call it, and whether it sends events."""

    name: str
    start: Callable[[], AbstractAsyncContextManager[list[Send]]]
    sends_events: bool = True


def scenarios(target: Target, load: Load) -> list[Scenario]:
    """All of them; the queries come last, so that there is something to ask about."""
    project, batch, in_flight = target.project_id, load.batch, load.in_flight
    batches = f"{batch:,} a request, {in_flight} in flight"
    return [
        Scenario(
            f"ingest, gRPC, {batches}",
            lambda: grpc_ingest(target, Requests(as_proto, project, batch), in_flight),
        ),
        Scenario(
            f"ingest, gRPC stream, {batches}",
            lambda: stream_ingest(target, Requests(as_proto, project, batch), in_flight),
        ),
        Scenario(
            f"ingest, REST, {batches}",
            lambda: rest_ingest(target, Requests(as_json, project, batch), in_flight),
        ),
        Scenario(
            f"ingest, REST, 1 a request, {load.connections} connections",
            lambda: rest_ingest(target, Requests(as_json, project, 1), load.connections),
        ),
        Scenario("hourly counts over a day, gRPC, 1 at a time", lambda: hourly_counts(target), sends_events=False),
        Scenario("newest 50 events, gRPC, 1 at a time", lambda: newest_events(target), sends_events=False),
    ]


def hourly_counts(target: Target) -> AbstractAsyncContextManager[list[Send]]:
    """QueryMetrics for the newest 24 hours that hold events."""
    question = QueryMetricsRequest(project_id=target.project_id, bucket="1h", limit=24)
    return grpc_query(target, METRICS_RPC, question.SerializeToString())


def newest_events(target: Target) -> AbstractAsyncContextManager[list[Send]]:
    """ListEvents for the first page."""
    return grpc_query(target, LIST_RPC, ListEventsRequest(project_id=target.project_id).SerializeToString())
