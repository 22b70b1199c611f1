"""anonymous_id and context, and the limits that context shares with props, through every way in and out."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from conftest import Account, Stack
from credentials import machine
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from importing import run as run_import
from server_sent_events import opened as source_of
from sockets import events as socket_events
from sockets import opened as socket_of
from surface import RPCS
from tailing import local, run
from transports import over_edge_grpc, over_native_grpc, over_rest

from nimbus.v1 import event_service_pb2 as pb
from nimbus.v1 import stream_service_pb2 as stream_pb

INGEST, LIST, SUBSCRIBE = (
    RPCS["EventService.IngestEvents"],
    RPCS["EventService.ListEvents"],
    RPCS["StreamService.SubscribeEvents"],
)
TS = "2026-01-02T03:04:05Z"
LEVELS_MAX = 20
BYTES_MAX = 32_768

Given = dict[str, Any]
# What became of one event: "" or the field and the reason of its refusal.
WayIn = Callable[[Stack, Account, list[Given], Path], list[str]]
WayOut = Callable[[Stack, Account, int], list[Given]]


def nested(levels: int, *, lists: bool = False) -> Given:
    """An object with so many levels of nesting, itself counted."""
    value: Any = [1.5] if lists else {"in": 1.5}
    for _ in range(levels - 2):
        value = [value] if lists else {"in": value}
    return {"in": value}


def outcomes(count: int, response: Any) -> list[str]:
    refused = {error.index: f"{error.field} {error.reason}" for error in response.errors}
    assert response.accepted == count - len(refused)
    return [refused.get(index, "") for index in range(count)]


def as_json(stack: Stack, account: Account, events: list[Given], _: Path) -> list[str]:
    body = {"project_id": account.project_id, "events": events}
    return outcomes(len(events), over_rest(stack, INGEST, body, machine(account)).response)


def as_structs(stack: Stack, account: Account, events: list[Given], _: Path) -> list[str]:
    request = pb.IngestEventsRequest(project_id=account.project_id)
    for event in events:
        message = request.events.add(name=event["name"], anonymous_id=event.get("anonymous_id"))
        message.ts.FromJsonString(event["ts"])
        for field in ("props", "context"):
            struct = Struct()
            struct.update(event.get(field, {}))
            getattr(message, field).CopyFrom(struct)
    return outcomes(len(events), over_native_grpc(stack, INGEST, request, machine(account)).response)


def as_json_in_protobuf(stack: Stack, account: Account, events: list[Given], _: Path) -> list[str]:
    request = pb.IngestEventsRequest(project_id=account.project_id)
    for event in events:
        message = request.events.add(name=event["name"], anonymous_id=event.get("anonymous_id"))
        message.ts.FromJsonString(event["ts"])
        message.props_json = json.dumps(event.get("props", {})).encode()
        message.context_json = json.dumps(event.get("context", {})).encode()
    return outcomes(len(events), over_edge_grpc(stack, INGEST, request, machine(account)).response)


def as_json_lines(stack: Stack, account: Account, events: list[Given], folder: Path) -> list[str]:
    file = folder / "events.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    run_import(stack, file, "--project", account.project_id)
    rejected = file.with_name("events.jsonl.rejected.jsonl")
    refused = [json.loads(line) for line in rejected.read_text().splitlines()] if rejected.exists() else []
    reasons = {one["line"]: f"{one['field']} {one['reason']}" for one in refused}
    return [reasons.get(number, "") for number in range(1, len(events) + 1)]


def listed_over_rest(stack: Stack, account: Account, _: int) -> list[Given]:
    query = {"project_id": account.project_id}
    items: list[Given] = over_rest(stack, LIST, query, machine(account)).answer.json["items"]
    return items[::-1]


def listed_over_grpc(stack: Stack, account: Account, _: int) -> list[Given]:
    response = over_native_grpc(stack, LIST, {"project_id": account.project_id}, machine(account)).response
    return [MessageToDict(item, preserving_proto_field_name=True) for item in response.items][::-1]


def subscribed(form: int, stack: Stack, account: Account, count: int) -> list[Given]:
    """The events of a subscription, with their objects whatever form these have."""
    request = stream_pb.SubscribeEventsRequest(project_id=account.project_id, after_seq=0, props_form=form)
    raw = request.SerializeToString()
    found: list[Given] = []
    with grpc.insecure_channel(stack.grpc_target) as channel:
        call = channel.unary_stream(SUBSCRIBE.wire, None, stream_pb.SubscribeEventsResponse.FromString)
        responses = call(raw, metadata=tuple(machine(account)("POST", SUBSCRIBE.wire, raw).items()), timeout=20)
        while len(found) < count:
            for item in next(responses).events:
                event = MessageToDict(item, preserving_proto_field_name=True)
                for name in ("props", "context"):
                    as_json = f"{name}_json" in event
                    assert as_json == (form == stream_pb.PROPS_FORM_JSON) != (name in event)
                    if as_json:
                        event[name] = json.loads(getattr(item, f"{name}_json"))
                found.append(event)
    return found


def subscribed_as_structs(stack: Stack, account: Account, count: int) -> list[Given]:
    return subscribed(stream_pb.PROPS_FORM_STRUCT, stack, account, count)


def subscribed_as_json(stack: Stack, account: Account, count: int) -> list[Given]:
    return subscribed(stream_pb.PROPS_FORM_JSON, stack, account, count)


def over_websocket(stack: Stack, account: Account, count: int) -> list[Given]:
    async def read() -> list[Given]:
        async with socket_of(stack, account, start="earliest") as socket:
            return await socket_events(socket, count)

    return asyncio.run(read())


def sent_by_the_server(stack: Stack, account: Account, count: int) -> list[Given]:
    with source_of(stack, account, machine(account), start="earliest") as source:
        return source.events(count)


def tailed(stack: Stack, account: Account, count: int) -> list[Given]:
    status, out, _ = run(account, *local(stack), "--earliest", "--json", "--limit", count)
    assert status == 0
    return [json.loads(line) for line in out.splitlines()]


WAYS_IN: list[WayIn] = [as_json, as_structs, as_json_in_protobuf, as_json_lines]
WAYS_OUT: list[WayOut] = [
    listed_over_rest,
    listed_over_grpc,
    subscribed_as_structs,
    subscribed_as_json,
    sent_by_the_server,
    over_websocket,
    tailed,
]


@pytest.mark.parametrize("way_in", WAYS_IN, ids=lambda way: way.__name__)
def test_both_have_20_levels_and_32_kib_each_and_no_more(
    stack: Stack, account: Account, way_in: WayIn, tmp_path: Path
) -> None:
    long, too_long = ({"x": "x" * (size - len('{"x":""}'))} for size in (BYTES_MAX, BYTES_MAX + 1))
    good = [nested(LEVELS_MAX), nested(LEVELS_MAX, lists=True), long]
    bad = [
        (nested(LEVELS_MAX + 1), "PROPS_TOO_DEEP"),
        (nested(LEVELS_MAX + 1, lists=True), "PROPS_TOO_DEEP"),
        (too_long, "FIELD_TOO_LONG"),
    ]
    events: list[Given] = [{"props": value, "context": value} for value in good]
    events += [{field: value} for field in ("props", "context") for value, _ in bad]
    for number, event in enumerate(events):
        event.update(name=f"{number}", ts=TS)
    expected = [""] * len(good) + [f"{field} {reason}" for field in ("props", "context") for _, reason in bad]
    assert way_in(stack, account, events, tmp_path) == expected
    # They come out alike, whatever way they came in.
    for way_out in WAYS_OUT if way_in is as_json else [subscribed_as_json]:
        shown = {event["name"]: event for event in way_out(stack, account, len(good))}
        for number, value in enumerate(good):
            assert shown[f"{number}"]["props"] == shown[f"{number}"]["context"] == value, way_out.__name__


def test_an_event_shows_its_anonymous_id_and_its_context_wherever_it_is_shown(stack: Stack, account: Account) -> None:
    context = {"page": {"path": "/é"}, "n": [1.5, None]}
    events: list[Given] = [
        {"name": "both", "ts": TS, "user_id": "u", "anonymous_id": "a", "context": context},
        {"name": "neither", "ts": TS},
    ]
    assert as_json(stack, account, events, Path()) == ["", ""]
    for way_out in WAYS_OUT:
        shown = {event["name"]: event for event in way_out(stack, account, 2)}
        both, neither = shown["both"], shown["neither"]
        assert (both["user_id"], both["anonymous_id"], both["context"]) == ("u", "a", context), way_out.__name__
        assert (neither.get("anonymous_id"), neither["context"]) == (None, {}), way_out.__name__


FILTERS: list[tuple[dict[str, str], list[str]]] = [
    ({"anonymous_id": "a"}, ["1", "2"]),
    ({"anonymous_id": "A"}, []),
    ({"context": '{"page": {"path": "/home"}}'}, ["1", "3"]),
    ({"context": '{"page": {"path": "/home"}}', "anonymous_id": "a"}, ["1"]),
    ({"context": '{"n": 12345678901234567890123}'}, ["2"]),
    ({"props": '{"page": {"path": "/home"}}'}, []),
    ({"context": "{}"}, ["1", "2", "3"]),
]


def test_filters_by_anonymous_id_and_context_mean_the_same_everywhere(stack: Stack, account: Account) -> None:
    home = {"page": {"path": "/home"}}
    events: list[Given] = [
        {"name": "1", "ts": TS, "anonymous_id": "a", "context": home},
        {"name": "2", "ts": TS, "anonymous_id": "a", "context": {"n": 12345678901234567890123}},
        {"name": "3", "ts": TS, "user_id": "a", "context": home | {"n": 12345678901234567890124}},
    ]

    assert as_json(stack, account, events, Path()) == [""] * 3
    for which, names in FILTERS:
        query = {"project_id": account.project_id, **which}
        for transport in (over_rest, over_native_grpc, over_edge_grpc):
            response = transport(stack, LIST, query, machine(account)).response
            assert sorted(item.name for item in response.items) == names, which
            assert response.count == len(names)
        if names:
            with source_of(stack, account, machine(account), start="earliest", **which) as source:
                assert [event["name"] for event in source.events(len(names))] == names, which


def test_tail_filters_by_anonymous_id_and_context(stack: Stack, account: Account) -> None:
    large = 12345678901234567890123
    events: list[Given] = [
        {"name": "another person", "ts": TS, "anonymous_id": "b", "context": {"n": large}},
        {"name": "another number", "ts": TS, "anonymous_id": "a", "context": {"n": large + 1}},
        {"name": "wanted", "ts": TS, "anonymous_id": "a", "context": {"n": large, "m": 1}},
    ]
    assert as_json(stack, account, events, Path()) == [""] * 3
    which = ("--anonymous", "a", "--context", f'{{"n": {large}}}')
    status, out, _ = run(account, *local(stack), "--earliest", "--json", "--limit", 1, *which)
    assert (status, json.loads(out)["name"]) == (0, "wanted")
    status, _, err = run(account, *local(stack), "--context", "[]")
    assert (status, "--context takes a JSON object" in err) == (1, True)


async def test_a_filter_holds_for_live_events(stack: Stack, account: Account) -> None:
    which = {"anonymous_id": "a", "context": '{"page": {"path": "/home"}}'}
    events: list[Given] = [
        {"name": f"{person} {path}", "ts": TS, "anonymous_id": person, "context": {"page": {"path": path}}}
        for person in "ba"
        for path in ("/", "/home")
    ]
    async with socket_of(stack, account, **which) as socket:
        assert await asyncio.to_thread(as_json, stack, account, events, Path()) == [""] * 4
        (event,) = await socket_events(socket, 1)
    assert event["name"] == "a /home"


@pytest.mark.parametrize("field", ["props", "context"])
def test_a_filter_past_a_limit_names_its_field(stack: Stack, account: Account, field: str) -> None:
    for wanted, reason in (
        ("[]", "FIELD_INVALID"),
        (json.dumps(nested(LEVELS_MAX + 1)), "FIELD_INVALID"),
        (json.dumps({"x": "x" * 10_240}), "FIELD_TOO_LONG"),
        (json.dumps({"x": [1] * 20}), "FIELD_TOO_LONG"),
    ):
        for rpc in (LIST, SUBSCRIBE):
            fields = {"project_id": account.project_id, field: wanted}
            failure = over_native_grpc(stack, rpc, fields, machine(account)).failure
            assert failure is not None
            assert (failure.reason, failure.violations) == (reason, (field,))
    fields = {"project_id": account.project_id, field: json.dumps(nested(15))}
    assert over_rest(stack, LIST, fields, machine(account)).failure is None
