"""A bad event costs itself only, whatever is bad about it, and an answer never fails once its events are stored."""

import json

import pytest
from conftest import Account, Stack
from credentials import machine, person
from importing import run as run_import
from outcomes import rest_failure
from surface import ROUTES, RPCS, Route
from transports import over_edge_grpc, over_grpc, over_native_grpc, over_rest, send

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.errors import Reason

INGEST, STREAM, LIST = (
    RPCS["EventService.IngestEvents"],
    RPCS["EventService.IngestEventStream"],
    RPCS["EventService.ListEvents"],
)
GOOD = '{"name": "good", "props": {"text": "[{\\"}", "n": 1.50}}'

BAD_EVENTS = {
    "an integer of 4,301 digits": '{"name": "x", "props": {"n": 1' + "0" * 4300 + "}}",
    "an integer of 4,301 digits as name": '{"name": 1' + "0" * 4300 + "}",
    "1,100 levels of nesting": '{"name": "x", "props": {"a": ' + "[" * 1100 + "]" * 1100 + "}}",
    "50,000 levels of nesting": '{"name": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}",
    "900 levels of nesting": '{"name": "x", "props": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
    "half a character as a value": '{"name": "x", "props": {"a": "\\ud83d"}}',
    "half a character in a key": '{"name": "x", "props": {"\\ud83d": 1}}',
    "half a character in the name of a field": '{"name": "x", "\\ud83d": 1}',
    "half a character in a key that stands twice": '{"name": "x", "\\ud83d": 1, "\\ud83d": 2}',
    "half a character in a key of props that stands twice": '{"name": "x", "props": {"\\ud83d": 1, "\\ud83d": 2}}',
    "half a character in every field": '{"name": "\\ud83d", "user_id": "\\ud83d", "ts": "\\ud83d"}',
    "bytes that are not UTF-8": '{"name": "caf\udce9"}',
    "a long name of a field": '{"name": "x", "' + "\U0001f600" * 5_000 + '": 1}',
    "NaN": '{"name": "x", "props": {"n": NaN}}',
    "a number that no double holds": '{"name": "x", "props": {"n": 1e400}}',
    "the name twice": '{"name": "x", "name": "y"}',
    "the name twice, once escaped": '{"name": "x", "n\\u0061me": "x"}',
    "user_id twice": '{"name": "x", "user_id": "a", "user_id": "b"}',
    "props twice": '{"name": "x", "props": {"a": 1}, "props": {"b": 2}}',
    "a key in props twice": '{"name": "x", "props": {"a": 1, "a": 1}}',
    "a key deep in props twice": '{"name": "x", "props": {"list": [{"a": 1, "b": 2, "a": 1}]}}',
    "context twice": '{"name": "x", "context": {"a": 1}, "context": {"b": 2}}',
    "a key deep in context twice": '{"name": "x", "context": {"list": [{"a": 1, "b": 2, "a": 1}]}}',
    "half a character in context": '{"name": "x", "context": {"a": "\\ud83d"}}',
    "half a character in anonymous_id": '{"name": "x", "anonymous_id": "\\ud83d"}',
    "NUL in context": '{"name": "x", "context": {"a\\u0000": 1}}',
    "900 levels of context": '{"name": "x", "context": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
    "a number in context that no double holds": '{"name": "x", "context": {"n": 1e400}}',
    "properties with a key twice": '{"name": "x", "properties": {"a": 1, "b": 2, "a": 1}}',
    "null": "null",
}


def body_of(account: Account, events: list[str]) -> bytes:
    text = f'{{"project_id": "{account.project_id}", "events": [{", ".join(events)}]}}'
    return text.encode(errors="surrogateescape")


@pytest.mark.parametrize("what", BAD_EVENTS)
def test_a_bad_event_of_json_costs_itself_only(stack: Stack, account: Account, what: str) -> None:
    body = body_of(account, [GOOD, BAD_EVENTS[what], GOOD])
    response = over_rest(stack, INGEST, body, person(account)).response
    assert (response.accepted, [error.index for error in response.errors]) == (2, [1])
    assert response.errors[0].message
    items = over_rest(stack, LIST, {"project_id": account.project_id}, machine(account)).response.items
    assert [(item.name, item.props["text"]) for item in items] == [("good", '[{"}')] * 2


def test_all_bad_events_together_cost_themselves_only(stack: Stack, account: Account) -> None:
    events = [event for bad in BAD_EVENTS.values() for event in (GOOD, bad)]
    body = body_of(account, events)
    headers = machine(account)("POST", "/v1/events", body)
    for accepted in (len(BAD_EVENTS), 0):  # sent again as it is, it is the same request
        answer = send(stack, "POST", "/v1/events", body, headers)
        assert answer.status == 200, answer
        assert (answer.json["accepted"], answer.json["rejected"]) == (accepted, len(BAD_EVENTS))
    assert [error["index"] for error in answer.json["errors"]] == list(range(1, len(events), 2))


def test_a_bad_line_of_an_import_costs_itself_only(stack: Stack, account: Account, tmp_path) -> None:  # noqa: ANN001
    file = tmp_path / "history.jsonl"
    dated = [bad.replace("{", '{"ts": "2024-01-01T00:00:00Z", ', 1) for bad in BAD_EVENTS.values()]
    good = '{"ts": "2024-01-01T00:00:00Z", "name": "good"}'
    lines = [line for bad in dated for line in (good, bad)]
    file.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    status, said = run_import(stack, file, "--project", account.project_id)
    assert (status, said.partition(":")[0]) == (
        1,
        f"{len(dated)} events stored, 0 there already, {len(dated)} refused",
    )
    refused = (tmp_path / "history.jsonl.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in refused] == list(range(2, len(lines) + 1, 2))


def message_of(account: Account, bad: bytes, message: type = pb.IngestEventsRequest) -> bytes:
    """A request with one good event, an encoded one, and another good one."""
    good = message(events=[pb.Event(name="good")]).SerializeToString()
    project = message(project_id=account.project_id).SerializeToString()
    return project + good + b"\x12" + varint(len(bad)) + bad + good


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def deep_struct(levels: int) -> bytes:
    value = b"\x11" + bytes(8)
    for _ in range(levels):
        fields = b"\x0a\x01a\x12" + varint(len(value)) + value
        struct = b"\x0a" + varint(len(fields)) + fields
        value = b"\x2a" + varint(len(struct)) + struct
    fields = b"\x0a\x01a\x12" + varint(len(value)) + value
    struct = b"\x0a" + varint(len(fields)) + fields
    return b"\x0a\x01x\x1a" + varint(len(struct)) + struct


BAD_MESSAGES = {
    "a name that is not UTF-8": b"\x0a\x04caf\xe9",
    "a user that is not UTF-8": b"\x0a\x01x\x2a\x01\xff",
    "an anonymous_id that is not UTF-8": b"\x0a\x01x\x3a\x01\xff",
    "context_json with a key twice": pb.Event(name="x", context_json=b'{"a":1,"a":2}').SerializeToString(),
    "a Struct of 30 levels": deep_struct(30),
    "a Struct of 500 levels": deep_struct(500),
    "what is no message": b"\xff\xff",
    "a field that is cut off": b"\x0a\x7fx",
    "props_json that are not JSON": pb.Event(name="x", props_json=b"{").SerializeToString(),
    "props_json with a key twice": pb.Event(name="x", props_json=b'{"a":1,"a":2}').SerializeToString(),
    "props_json of 1,100 levels": pb.Event(
        name="x", props_json=b'{"a":' * 1100 + b"1" + b"}" * 1100
    ).SerializeToString(),
}


@pytest.mark.parametrize("what", BAD_MESSAGES)
@pytest.mark.parametrize("transport", [over_native_grpc, over_edge_grpc])
def test_a_bad_message_of_an_event_costs_itself_only(stack: Stack, account: Account, what: str, transport) -> None:  # noqa: ANN001
    outcome = transport(stack, INGEST, message_of(account, BAD_MESSAGES[what]), machine(account))
    assert outcome.failure is None
    assert (outcome.response.accepted, [error.index for error in outcome.response.errors]) == (2, [1])


def test_a_bad_message_of_an_event_does_not_end_a_stream(stack: Stack, account: Account) -> None:
    for bad in BAD_MESSAGES.values():
        raw = message_of(account, bad, pb.IngestEventStreamRequest)
        outcome = over_grpc(stack.grpc_target, STREAM, raw, machine(account))
        assert outcome.failure is None
        assert (outcome.response.result.accepted, outcome.response.result.rejected) == (2, 1)


def test_a_request_that_is_no_message_is_refused_whole(stack: Stack, account: Account) -> None:
    good = message_of(account, BAD_MESSAGES["a name that is not UTF-8"])
    for raw in (b"\xff\xff", good[:-3], good + b"\x07", b"\x0a\x01\xff" + good):
        failure = over_native_grpc(stack, INGEST, raw, machine(account)).failure
        assert failure is not None
        assert failure.reason == Reason.REQUEST_UNPARSABLE


def test_a_field_of_a_request_that_stands_twice_refuses_it(stack: Stack, account: Account) -> None:
    project = f'"project_id": "{account.project_id}"'
    for text in (
        f'{{{project}, "events": [{GOOD}], "events": [{GOOD}, {GOOD}]}}',
        f'{{{project}, {project}, "events": [{GOOD}]}}',
        f'{{{project}, "events": [{GOOD}], "\\u0065vents": []}}',
        f'{{{project}, "events": [{GOOD}], "\\ud83d": 1, "\\ud83d": 1}}',
    ):
        answer = send(stack, "POST", "/v1/events", text.encode(), account.bearer)
        assert answer.status == 400, answer
        assert rest_failure(answer).reason == Reason.FIELD_INVALID
    assert not over_rest(stack, LIST, {"project_id": account.project_id}, machine(account)).response.items


def test_half_a_character_in_the_name_of_a_field_of_a_request_refuses_it(stack: Stack, account: Account) -> None:
    text = f'{{"project_id": "{account.project_id}", "events": [{GOOD}], "\\ud83d": 1}}'
    answer = send(stack, "POST", "/v1/events", text.encode(), account.bearer)
    assert (answer.status, rest_failure(answer).reason) == (400, Reason.FIELD_UNKNOWN)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body_schema], ids=str)
def test_no_json_body_may_have_a_key_twice(stack: Stack, account: Account, route: Route) -> None:
    assert route.body_schema is not None
    for name in route.body_schema["properties"]:
        for again in (name, f"\\u{ord(name[0]):04x}{name[1:]}"):
            body = f'{{"{name}": "a", "{again}": "b"}}'.encode()
            answer = send(stack, route.method, route.filled(account.project_id), body, account.bearer)
            assert answer.status == 400, (str(route), body, answer)
            failure = rest_failure(answer)
            assert (failure.reason, failure.violations) == (Reason.FIELD_INVALID, (name,)), answer
