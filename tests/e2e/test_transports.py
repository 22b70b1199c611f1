"""Every RPC works over every transport, and means the same."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from asking import until_answered
from conftest import Account, Stack
from credentials import Credentials, bearer, nobody, signed
from error_recipes import RECIPES, World
from google.protobuf import json_format
from outcomes import Outcome, masked
from surface import RPCS
from transports import TRANSPORTS, Transport, over_native_grpc, over_rest, send

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.errors import Reason

EVENTS = [
    {
        "name": "page_view",
        "ts": "2026-01-02T03:04:05.678901Z",
        "props": {"page": "/ü", "n": [1, 2.5, None, True, {"deep": {}}], "big": 9007199254740991},
        "user_id": "ada",
        "idempotency_key": "one",
    },
    {"name": "signup", "ts": "2026-01-02T03:05:00Z"},
    {"name": "signup", "ts": "2026-01-03T00:00:00Z", "props": {"plan": "pro"}},
    {"name": ""},
]
SINCE = "2026-01-02T00:00:00Z"
GREAT = {"property": "props.big", "operator": "CONDITION_OPERATOR_GREATER", "values": [1e15]}


class Session:
    """Someone who does everything there is to do, over one transport, and keeps the responses."""

    def __init__(self, stack: Stack, transport: Transport) -> None:
        self.stack, self.transport = stack, transport
        self.transcript: list[tuple[str, Any]] = []

    def call(self, name: str, who: Any = nobody, /, **fields: object) -> Any:
        outcome = self.transport(self.stack, RPCS[name], fields, who)
        assert outcome.failure is None, (name, outcome.failure)
        # Where it comes with the trailers, nobody has it before a stream's end.
        assert RPCS[name].gives_stream or uuid.UUID(outcome.request_id)
        shown = json_format.MessageToDict(
            outcome.response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        self.transcript.append((name, masked(shown)))
        return outcome.response

    def everything(self) -> list[tuple[str, Any]]:
        person = {"email": f"{uuid.uuid4().hex}@Example.com", "password": "correct horse battery"}
        self.call("AuthService.Register", **person)
        tokens = self.call("AuthService.Login", **person)
        me = bearer(tokens.access_token)
        self.call("AuthService.GetMe", me)
        created = self.call("ProjectService.CreateProject", me, name="Straße")
        project = {"project_id": created.project.id}
        key = signed(created.project.api_key_id, created.api_key_secret)
        self.call("ProjectService.ListProjects", me, page_size=10)
        self.call("ProjectService.UpdateProject", me, name="Allée", **project)
        self.call("ProjectService.GetProject", me, **project)
        self.call("EventService.IngestEvents", key, events=EVENTS, **project)
        self.call("EventService.IngestEvents", me, events=EVENTS[:1], **project)
        self.call("EventService.ListEvents", key, **project)
        self.call("EventService.ListEvents", me, name=["signup", "page_view"], limit=1, **project)
        self.call("EventService.ListEvents", me, props='{"plan": "pro"}', since="2026-01-03T00:00:00Z", **project)
        self.call("EventService.ListEvents", me, user_id="ada", until="2026-01-03T00:00:00Z", **project)
        self.call("MetricsService.QueryMetrics", key, bucket="1d", **project)
        bounds = {"start": "2026-01-02T00:00:00Z", "end": "2026-01-03T00:00:00Z", "name": ["signup"], "limit": 5}
        self.call("MetricsService.QueryMetrics", me, bucket="15m", **bounds, **project)
        self.questions(project, me, key)
        self.streams(project, me, key)
        self.call("ProjectService.RotateKeys", me, grace_seconds=60, **project)
        self.call("ProjectService.DeleteProject", me, **project)
        fresh = self.call("AuthService.Refresh", bearer(tokens.refresh_token))
        self.call("AuthService.Logout", bearer(fresh.access_token))
        for name in ("CheckLiveness", "CheckReadiness", "GetHealthDetails"):
            self.call(f"HealthService.{name}")
        return self.transcript

    def questions(self, project: dict[str, Any], me: Credentials, key: Credentials) -> None:
        until_answered(lambda: self.ask("ListEventNames", me, project))
        about = {"range": {"start": "2026-01-02T00:00:00Z", "end": "2026-01-04T00:00:00Z"}, "timezone": "Europe/Berlin"}
        signup, view = {"names": ["signup"]}, {"names": ["page_view"], "filter": {"condition": GREAT}}
        trend = {**about, "series": [{"selector": signup}, {"selector": view}], "bucket": "1d"}
        self.call("AnalysisService.QueryTrend", key, **trend, **project)
        steps = [{"selector": view}, {"selector": signup}]
        self.call("AnalysisService.QueryFunnel", me, **about, steps=steps, within="1d", **project)
        units = {"unit": "RETENTION_UNIT_DAY", "periods": 2}
        self.call("AnalysisService.QueryRetention", key, **about, start=view, **units, **project)
        self.call("AnalysisService.QueryPaths", me, **about, anchor=view, steps=2, **project)
        self.call("AnalysisService.ListPeopleBehind", key, trend=trend, trend_cell={"series": 1}, **project)
        self.call("AnalysisService.ListEventNames", me, search="PAGE", **project)
        self.call("AnalysisService.ListProperties", key, name=["page_view", "signup"], since=SINCE, **project)
        self.call("AnalysisService.ListPropertyValues", me, property="props.page", since=SINCE, **project)

    def ask(self, name: str, who: Credentials, fields: dict[str, Any]) -> Outcome:
        return self.transport(self.stack, RPCS[f"AnalysisService.{name}"], fields, who)

    def streams(self, project: dict[str, Any], me: Credentials, key: Credentials) -> None:
        # No route brings a consumer into being.
        transport = over_native_grpc if self.transport is over_rest else self.transport
        fields = {"consumer": "billing", "after_seq": 1, "props_form": "PROPS_FORM_JSON"}
        assert (
            transport(self.stack, RPCS["StreamService.SubscribeEvents"], project | fields, key).response.position == 1
        )
        self.call("StreamService.AckPosition", key, consumer="billing", position=3, **project)
        self.call("StreamService.AckPosition", me, consumer="billing", position=2, rewind=True, **project)
        self.call("StreamService.ListConsumers", key, **project)
        self.call("StreamService.DeleteConsumer", key, consumer="billing", **project)
        token = self.call("StreamService.CreateStreamToken", me, ttl_seconds=60, **project).token
        self.call("StreamService.StreamEvents", nobody, token=token, name=["signup"], **project)
        self.call("StreamService.StreamEvents", key, after_seq=2, heartbeat_seconds=1, **project)
        self.call("StreamService.StreamEvents", me, start="earliest", props='{"plan": "pro"}', **project)


@pytest.fixture(scope="module")
def by_rest(stack: Stack) -> list[tuple[str, Any]]:
    return Session(stack, over_rest).everything()


def test_the_walk_goes_through_every_rpc(by_rest: list[tuple[str, Any]]) -> None:
    assert {name for name, _ in by_rest} == {name for name, rpc in RPCS.items() if rpc.bindings}
    ingested = next(shown for name, shown in by_rest if name == "EventService.IngestEvents")
    assert (ingested["accepted"], ingested["rejected"]) == (3, 1)
    listed = next(shown for name, shown in by_rest if name == "EventService.ListEvents")
    assert listed["items"][2]["props"] == EVENTS[0]["props"]
    assert [item["ts"] for item in listed["items"]] == [event["ts"] for event in EVENTS[2::-1]]
    asked = {name: shown for name, shown in by_rest if name.startswith("AnalysisService.")}
    assert [series["total"] for series in asked["AnalysisService.QueryTrend"]["series"]] == [2, 1]
    assert asked["AnalysisService.ListPeopleBehind"]["people"] == [{"id": "…"}]
    assert asked["AnalysisService.ListPropertyValues"]["values"] == [{"value": "/ü", "events": 1}]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_rpc_means_the_same_over(transport: str, stack: Stack, by_rest: list[tuple[str, Any]]) -> None:
    assert Session(stack, TRANSPORTS[transport]).everything() == by_rest


@pytest.mark.parametrize("transport", sorted(TRANSPORTS.keys() - {"REST"}))
def test_a_stream_of_one_batch_means_the_same_over(transport: str, stack: Stack, account: Account) -> None:
    assert [name for name, rpc in RPCS.items() if rpc.takes_stream] == ["EventService.IngestEventStream"]
    stream, call = RPCS["EventService.IngestEventStream"], RPCS["EventService.IngestEvents"]
    fields = {"project_id": account.project_id, "events": EVENTS, "return_receipts": True}
    sign = signed(account.api_key_id, account.api_key_secret)
    response = TRANSPORTS[transport](stack, stream, fields, sign).response
    again = TRANSPORTS[transport](stack, call, {**fields, "events": EVENTS[:1] + EVENTS[3:]}, sign).response
    assert response.batch == 1
    assert [(r.outcome, r.seq, r.reason) for r in response.result.receipts] == [
        (pb.EVENT_OUTCOME_STORED, 1, ""),
        (pb.EVENT_OUTCOME_STORED, 2, ""),
        (pb.EVENT_OUTCOME_STORED, 3, ""),
        (pb.EVENT_OUTCOME_REJECTED, 0, Reason.FIELD_REQUIRED),
    ]
    assert (again.accepted, again.duplicates, again.rejected) == (0, 1, 1)


@pytest.mark.parametrize("reason", [Reason.FIELD_INVALID, Reason.SIGNATURE_MISMATCH, Reason.PROJECT_NOT_FOUND])
def test_a_failure_is_the_same_over_every_transport(stack: Stack, account: Account, reason: Reason) -> None:
    world = World(stack, account)
    failures = [RECIPES[reason].follow(transport, world).failure for transport in TRANSPORTS.values()]
    assert failures == [failures[0]] * len(TRANSPORTS)
    assert failures[0] is not None
    assert failures[0].reason == reason


def test_every_route_of_an_rpc_means_the_same(stack: Stack, account: Account) -> None:
    several = [rpc for rpc in RPCS.values() if len(rpc.bindings) > 1]
    assert several
    for rpc in several:
        fields = {"project_id": account.project_id} if "project_id" in rpc.fields else {}
        outcomes = [over_rest(stack, rpc, fields, bearer(account.access_token), b).response for b in rpc.bindings]
        shown = [masked(json_format.MessageToDict(o, preserving_proto_field_name=True)) for o in outcomes]
        assert shown == [shown[0]] * len(shown)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"])
def test_the_documentation_is_served(stack: Stack, path: str) -> None:
    kinds = {"/docs": "text/html", ".json": "application/json", ".css": "text/css", ".js": "text/javascript"}
    answer = send(stack, "GET", path)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(next(kind for end, kind in kinds.items() if path.endswith(end)))
    assert len(answer.body) > 300
    if path == "/docs":
        assert b"/openapi.json" in answer.body
        assert b"https://" not in answer.body, "the page needs the network of others"


@pytest.mark.parametrize("path", ["/", "/redoc"])
def test_other_ways_to_the_documentation_lead_there(stack: Stack, path: str) -> None:
    answer = send(stack, "GET", path)
    assert answer.status == 307
    assert answer.headers["location"].endswith("/docs")


def test_default_values_and_snake_case_names_are_printed(stack: Stack, account: Account) -> None:
    body = {"project_id": account.project_id, "events": [{"name": "x", "ts": datetime.now(UTC).isoformat()}]}
    answer = over_rest(stack, RPCS["EventService.IngestEvents"], body, bearer(account.access_token)).answer
    assert answer is not None
    assert answer.json == {"accepted": 1, "duplicates": 0, "rejected": 0, "errors": [], "receipts": []}
