"""Numbers are kept to the last digit or refused with their event, whatever way they come and whatever stands beside."""

import json
from collections.abc import Callable
from decimal import Decimal
from itertools import islice
from pathlib import Path

import grpc
import psycopg
import pytest
import requests
from conftest import Account, Stack
from credentials import machine
from google.protobuf.struct_pb2 import Struct
from importing import run as run_import
from server_sent_events import opened, path_of
from surface import RPCS
from tailing import local, run
from transports import over_native_grpc, over_rest

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.errors import Reason

INGEST, LIST = RPCS["EventService.IngestEvents"], RPCS["EventService.ListEvents"]

KEPT = [
    "0",
    "-0",
    "1.10",
    "0.1",
    "0.30000000000000004",
    "0.1000000000000000055511151231257827",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "12345678901234567890123",
    "1" * 309,
    "0." + "3" * 1000,
    "1e5",
    "1.5E-7",
    "1e308",
    "5e-324",
    "1.7976931348623157e308",
    "0e-16384",
    "0.000e99999",
]
REFUSED = ["1e309", "-1e400", "1e-325", "1e-16384", "1" + "0" * 4300, "9" * 400, "0." + "3" * 1200, "NaN", "Infinity"]
# What an event may stand beside without a difference.
NEIGHBOURS = [
    '{"name": "odd", "props": {"n": NaN}}',
    '{"name": "odd", "props": {"a": 1, "a": 2}}',
    '{"name": "\\ud83d"}',
]

WayIn = Callable[[Stack, Account, list[str], Path], tuple[int, list[str]]]


def props_of(number: str) -> str:
    return f'{{"n": {number}, "deep": [{{"n": {number}}}]}}'


def as_json(stack: Stack, account: Account, numbers: list[str], neighbours: list[str]) -> tuple[int, list[str]]:
    events = [*neighbours, *(f'{{"name": "n", "props": {props_of(number)}}}' for number in numbers)]
    body = f'{{"project_id": "{account.project_id}", "events": [{", ".join(events)}]}}'.encode()
    response = over_rest(stack, INGEST, body, machine(account)).response
    return response.accepted, [error.reason for error in response.errors[len(neighbours) :]]


def rest(stack: Stack, account: Account, numbers: list[str], _: Path) -> tuple[int, list[str]]:
    return as_json(stack, account, numbers, [])


def rest_beside_odd_events(stack: Stack, account: Account, numbers: list[str], _: Path) -> tuple[int, list[str]]:
    return as_json(stack, account, numbers, NEIGHBOURS)


def grpc_json(stack: Stack, account: Account, numbers: list[str], _: Path) -> tuple[int, list[str]]:
    events = [pb.Event(name="n", props_json=props_of(number).encode()) for number in numbers]
    request = pb.IngestEventsRequest(project_id=account.project_id, events=events)
    response = over_native_grpc(stack, INGEST, request, machine(account)).response
    return response.accepted, [error.reason for error in response.errors]


def import_jsonl(stack: Stack, account: Account, numbers: list[str], folder: Path) -> tuple[int, list[str]]:
    file = folder / "numbers.jsonl"
    file.write_text("".join(f'{{"name":"n","ts":"2024-01-01T00:00:00Z","props":{props_of(n)}}}\n' for n in numbers))
    return imported(stack, account, file)


def import_csv(stack: Stack, account: Account, numbers: list[str], folder: Path) -> tuple[int, list[str]]:
    file = folder / "numbers.csv"
    rows = ('n,2024-01-01T00:00:00Z,"' + props_of(n).replace('"', '""') + '"\n' for n in numbers)
    file.write_text("name,ts,props\n" + "".join(rows))
    return imported(stack, account, file)


def imported(stack: Stack, account: Account, file: Path) -> tuple[int, list[str]]:
    _, said = run_import(stack, file, "--project", account.project_id)
    refused = file.with_name(file.name + ".rejected.jsonl")
    reasons = [json.loads(line)["reason"] for line in refused.read_text().splitlines()] if refused.exists() else []
    return int(said.partition(" ")[0].replace(",", "")), reasons


WAYS_IN: list[WayIn] = [rest, rest_beside_odd_events, grpc_json, import_jsonl, import_csv]


@pytest.mark.parametrize("way_in", WAYS_IN, ids=lambda way: way.__name__)
def test_numbers_are_kept_to_the_last_digit(stack: Stack, account: Account, way_in: WayIn, tmp_path: Path) -> None:
    assert way_in(stack, account, KEPT, tmp_path) == (len(KEPT), [])
    wanted = [Decimal(number) for number in KEPT]
    with psycopg.connect(stack.dsn()) as connection:
        query = (
            "SELECT (props->>'n')::numeric, (props->'deep'->0->>'n')::numeric FROM events "
            "WHERE project_id = %s AND name = 'n' ORDER BY seq"
        )
        stored = connection.execute(query, (account.project_id,)).fetchall()
    assert stored == [(number, number) for number in wanted]
    with opened(stack, account, machine(account), start="earliest") as source:
        assert source.events(len(KEPT))  # as JSON that a parser takes
    streamed = sse_numbers(stack, account, len(KEPT))
    assert [Decimal(number) for number in streamed] == wanted
    status, out, _ = run(account, *local(stack), "--earliest", "--json", "--limit", len(KEPT))
    assert status == 0
    shown = [json.loads(line, parse_float=Decimal, parse_int=Decimal)["props"]["n"] for line in out.splitlines()]
    assert shown == wanted
    items = over_rest(stack, LIST, {"project_id": account.project_id, "limit": 200}, machine(account)).response.items
    assert sorted(item.props["n"] for item in items) == sorted(map(float, KEPT))


def sse_numbers(stack: Stack, account: Account, count: int) -> list[str]:
    """The texts of `n` in server-sent events."""
    url = stack.url + path_of(account, start="earliest")
    with requests.get(url, headers=account.bearer, stream=True, timeout=20) as response:
        data = (line[6:] for line in response.iter_lines() if line.startswith(b"data: ") and b'"props"' in line)
        return [json.loads(line, parse_float=str, parse_int=str)["props"]["n"] for line in islice(data, count)]


@pytest.mark.parametrize("way_in", WAYS_IN, ids=lambda way: way.__name__)
def test_a_number_out_of_range_refuses_its_event_alone(
    stack: Stack, account: Account, way_in: WayIn, tmp_path: Path
) -> None:
    accepted, reasons = way_in(stack, account, ["1", *REFUSED, "2"], tmp_path)
    assert accepted == 2
    assert reasons == ["FIELD_INVALID"] * len(REFUSED)


@pytest.mark.parametrize("number", ["1e-300", "-1.5e300", "1e-16383", "1" + "0" * 300])
@pytest.mark.parametrize("form", [rest, grpc_json])
def test_numbers_count_as_long_as_the_database_writes_them(
    stack: Stack, account: Account, form: WayIn, number: str, tmp_path: Path
) -> None:
    many = "[" + ", ".join([number] * 120) + "]"
    accepted, reasons = form(stack, account, [many, "1"], tmp_path)
    assert accepted == 1
    assert reasons == ["FIELD_INVALID" if number == "1e-16383" else "FIELD_TOO_LONG"]


def test_numbers_of_a_struct_are_kept(stack: Stack, account: Account) -> None:
    numbers = [0.1, 1e22, 1e-7, 2.0**53 + 2, -1.5, 5e-324, 1.7976931348623157e308, 123456789012345680000.0]
    props = Struct()
    props.update({"n": numbers})
    request = pb.IngestEventsRequest(project_id=account.project_id, events=[pb.Event(name="n", props=props)])
    assert over_native_grpc(stack, INGEST, request, machine(account)).response.accepted == 1
    with psycopg.connect(stack.dsn()) as connection:
        query = "SELECT props->>'n' FROM events WHERE project_id = %s"
        row = connection.execute(query, (account.project_id,)).fetchone()
    assert row is not None
    assert list(map(float, json.loads(row[0]))) == numbers


@pytest.mark.parametrize("wanted", ["12345678901234567890123", "0.1000000000000000055511151231257827", "1.10", "15E-1"])
def test_a_filter_finds_a_number_by_every_digit(stack: Stack, account: Account, wanted: str) -> None:
    near = ["12345678901234567890124", "0.1", "1.1", "1.5", "1.50"]
    assert rest(stack, account, [wanted, *near], Path())[0] == 1 + len(near)
    same = 1 + sum(Decimal(number) == Decimal(wanted) for number in near)
    query = {"project_id": account.project_id, "props": f'{{"n": {wanted}}}'}
    assert len(over_rest(stack, LIST, query, machine(account)).response.items) == same
    with opened(stack, account, machine(account), start="earliest", props=query["props"], name="n") as source:
        assert len(source.events(same)) == same
        assert rest(stack, account, [*near, wanted], Path())[0] == 1 + len(near)
        live = source.events(same)
    assert [event["seq"] for event in live][-1] == str(2 * (1 + len(near)))


def test_a_page_of_large_events_fits_into_what_grpc_clients_take(stack: Stack, account: Account) -> None:
    limit = 200
    numbers = b'{"n":[' + b",".join([b"1"] * 5_000) + b"]}"
    count = 120
    request = pb.IngestEventsRequest(
        project_id=account.project_id, events=[pb.Event(name=f"{n}", props_json=numbers) for n in range(count)]
    )
    assert over_native_grpc(stack, INGEST, request, machine(account)).response.accepted == count
    # As plain stubs have it: messages of up to 4 MiB.
    with grpc.insecure_channel(stack.grpc_target) as channel:
        call = channel.unary_unary(LIST.wire, response_deserializer=pb.ListEventsResponse.FromString)
        names: list[str] = []
        page = pb.ListEventsRequest(project_id=account.project_id, limit=limit)
        while True:
            raw = page.SerializeToString()
            response = call(raw, metadata=tuple(machine(account)("POST", LIST.wire, raw).items()), timeout=20)
            names += [item.name for item in response.items]
            if not response.HasField("next_cursor"):
                break
            page.after_ts.CopyFrom(response.next_cursor.after_ts)
            page.after_id = response.next_cursor.after_id
        assert sorted(names, key=int) == [str(n) for n in range(count)]
        # With an offset, the next page starts behind the items.
        names, offset = [], 0
        while offset < count:
            raw = pb.ListEventsRequest(project_id=account.project_id, limit=limit, offset=offset).SerializeToString()
            response = call(raw, metadata=tuple(machine(account)("POST", LIST.wire, raw).items()), timeout=20)
            names += [item.name for item in response.items]
            offset += len(response.items)
        assert sorted(names, key=int) == [str(n) for n in range(count)]
    answer = over_rest(stack, LIST, {"project_id": account.project_id, "limit": limit}, machine(account)).response
    assert len(answer.items) == min(limit, count), "legacy clients count on the limit"


def test_a_filter_with_a_number_out_of_range_is_refused(stack: Stack, account: Account) -> None:
    for number in REFUSED:
        query = {"project_id": account.project_id, "props": f'{{"n": {number}}}'}
        failure = over_rest(stack, LIST, query, machine(account)).failure
        assert failure is not None
        assert failure.reason == Reason.FIELD_INVALID
