"""anonymous_id and context, and the limits that context shares with props, through every way in and out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def subscribed(form: stream_pb.PropsForm, stack: Stack, account: Account, count: int) -> list[Given]:
    fields = {"project_id": account.project_id, "after_seq": 0, "props_form": form}
    return []


def sent_by_the_server(stack: Stack, account: Account, count: int) -> list[Given]:
    with source_of(stack, account, machine(account), start="earliest") as source:
        return source.events(count)


def tailed(stack: Stack, account: Account, count: int) -> list[Given]:
    status, out, _ = run(account, *local(stack), "--earliest", "--json", "--limit", count)
    assert status == 0
    return [json.loads(line) for line in out.splitlines()]


WAYS_IN: list[WayIn] = [as_json, as_structs, as_json_in_protobuf, as_json_lines]
WAYS_OUT: list[WayOut] = [listed_over_rest, listed_over_grpc, sent_by_the_server, tailed]


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
    for way_out in WAYS_OUT:
        shown = {event["name"]: event for event in way_out(stack, account, len(good))}
        for number, value in enumerate(good):
            assert shown[f"{number}"]["props"] == shown[f"{number}"]["context"] == value, way_out.__name__
