"""Calls of every RPC that needs credentials, as a member of a project would make them."""

from conftest import Account, Stack
from credentials import Credentials
from outcomes import Failure
from surface import RPCS, Rpc
from transports import Transport, over_edge_grpc, over_native_grpc, over_rest

from nimbus.v1.access_pb2 import ACCESS_PUBLIC, ACCESS_REFRESH

WAYS = [over_rest, over_native_grpc, over_edge_grpc]

# What a member would send, for every RPC whose request names a project. A new one must be added here to be tested.
GOOD_FIELDS: dict[str, dict[str, object]] = {
    "ProjectService.GetProject": {},
    "ProjectService.UpdateProject": {"name": "taken over"},
    "ProjectService.DeleteProject": {},
    "ProjectService.RotateKeys": {"grace_seconds": 60},
    "EventService.IngestEvents": {"events": [{"name": "intrusion"}]},
    "EventService.IngestEventStream": {"events": [{"name": "intrusion"}]},
    "EventService.ListEvents": {},
    "StreamService.SubscribeEvents": {},
    "StreamService.StreamEvents": {},
    "StreamService.CreateStreamToken": {},
    "StreamService.AckPosition": {"consumer": "billing", "position": 1},
    "StreamService.ListConsumers": {},
    "StreamService.DeleteConsumer": {"consumer": "billing"},
    "MetricsService.QueryMetrics": {},
    "AnalysisService.QueryTrend": {"range": {"last": "30d"}, "series": [{}]},
    "AnalysisService.QueryFunnel": {
        "range": {"last": "30d"},
        "steps": [{"selector": {"names": ["signup"]}}, {"selector": {"names": ["purchase"]}}],
    },
    "AnalysisService.QueryRetention": {"range": {"last": "30d"}, "unit": "RETENTION_UNIT_DAY", "periods": 3},
    "AnalysisService.QueryPaths": {"range": {"last": "30d"}, "anchor": {"names": ["signup"]}, "steps": 3},
    "AnalysisService.ListPeopleBehind": {"trend": {"range": {"last": "30d"}, "series": [{}]}, "trend_cell": {}},
    "AnalysisService.ListEventNames": {},
    "AnalysisService.ListProperties": {},
    "AnalysisService.ListPropertyValues": {"property": "props.plan"},
}
GUARDED = {name: rpc for name, rpc in RPCS.items() if rpc.access not in {ACCESS_PUBLIC, ACCESS_REFRESH}}


def fields_of(rpc: Rpc, account: Account) -> dict[str, object]:
    named = {"project_id": account.project_id} if "project_id" in rpc.fields else {}
    return {**named, **GOOD_FIELDS.get(rpc.name, {"name": "x"} if "name" in rpc.fields else {})}


def calls_of(transport: Transport, rpc: Rpc) -> list[Transport]:
    """The transport, over each of the RPC's routes where it is REST: some streams have none."""
    if transport is not over_rest:
        return [transport]
    return [lambda *args, binding=binding: over_rest(*args, binding=binding) for binding in rpc.bindings]


def failures(transport: Transport, stack: Stack, rpc: Rpc, fields: object, who: Credentials) -> list[Failure]:
    outcomes = [call(stack, rpc, fields, who) for call in calls_of(transport, rpc)]
    assert all(outcome.failure for outcome in outcomes), f"{rpc.name} was carried out"
    return [outcome.failure for outcome in outcomes]
