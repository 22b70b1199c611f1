"""`nimbus bench`: a table, an exit status that says whether calls failed, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import psycopg
import pytest
from conftest import INTERRUPTIBLE, STOPS_AT_ONCE, Account, Stack

from nimbus.v1.event_service_pb2 import IngestEventsRequest
from nimbus_server.bench.events import SLOTS, Requests, as_json, as_proto

LITTLE = ("--connections", "3", "--in-flight", "2", "--batch", "20", "--markdown")


def bench_process(url: str, grpc_target: str, *options: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "bench", "--url", url, "--grpc-target", grpc_target, *LITTLE, *options],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def bench(stack: Stack, *options: str, **environment: str) -> tuple[int, str, str]:
    process = bench_process(stack.url, stack.grpc_target, "--seconds", "0.3", *options, **environment)
    out, err = process.communicate(timeout=100)
    assert "Traceback" not in err
    return process.returncode, out, err


def temporary_projects(stack: Stack) -> int:
    with psycopg.connect(stack.dsn()) as connection:
        row = connection.execute("SELECT count(*) FROM projects WHERE name = 'nimbus bench'").fetchone()
    assert row is not None
    return int(row[0])


def rows_of(markdown: str) -> dict[str, list[str]]:
    cells = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in cells[2:]}


def test_the_table_names_the_machine_and_shows_each_load(stack: Stack) -> None:
    status, out, err = bench(stack)
    assert status == 0, out + err
    assert re.search(r"\d+ cores?", out.splitlines()[0])
    rows = rows_of(out)
    assert [name for name in rows if name.startswith("ingest")] == [
        "ingest, gRPC, 20 a request, 2 in flight",
        "ingest, gRPC stream, 20 a request, 2 in flight",
        "ingest, REST, 20 a request, 2 in flight",
        "ingest, REST, 1 a request, 3 connections",
    ]
    assert len(rows) == 6
    for name, (events, calls, _p50, _p99, errors) in rows.items():
        assert errors == "0"
        assert int(calls.replace(",", "")) > 0
        assert not name.startswith("ingest") or int(events.replace(",", "")) > 0
    assert temporary_projects(stack) == 0


def test_a_project_of_ones_own_keeps_its_events(stack: Stack, account: Account) -> None:
    options = ("--project", account.project_id, "--key-id", account.api_key_id)
    status, out, err = bench(stack, *options, NIMBUS_BENCH_SECRET=account.api_key_secret)
    assert status == 0, out + err
    with psycopg.connect(stack.dsn()) as connection:
        row = connection.execute("SELECT last_seq FROM streams WHERE project_id = %s", (account.project_id,)).fetchone()
    assert row is not None
    assert row[0] > 0

    status, out, err = bench(stack, *options, NIMBUS_BENCH_SECRET=account.api_key_secret[:-1] + "x")
    assert (status, out) == (1, "")
    assert "SIGNATURE_MISMATCH" in err
    assert err.count("\n") == 1


def test_ctrl_c_deletes_the_temporary_project(stack: Stack) -> None:
    process = bench_process(stack.url, stack.grpc_target, "--seconds", "100")
    deadline = time.monotonic() + 60
    while not temporary_projects(stack):
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert temporary_projects(stack) == 0


@pytest.mark.parametrize("missing", ["--url", "--grpc-target"])
def test_a_server_that_is_not_there_is_one_line(stack: Stack, missing: str) -> None:
    status, out, err = bench(stack, missing, {"--url": "http://127.0.0.1:1", "--grpc-target": "127.0.0.1:1"}[missing])
    assert (status, out) == (1, "")
    assert "127.0.0.1:1" in err
    assert err.count("\n") == 1
    assert temporary_projects(stack) == 0


def test_failed_calls_are_counted_by_reason_with_advice(scratch: Path) -> None:
    limits = STOPS_AT_ONCE | {"NIMBUS_RATE_LIMIT_ENABLED": "true", "NIMBUS_RATE_LIMIT_PER_MINUTE": "5"}
    stack = Stack(scratch / "data", limits).start()
    try:
        status, out, _ = bench(stack)
    finally:
        stack.stop()
    assert status == 1
    assert re.fullmatch(r"RATE_LIMITED \d+", rows_of(out)["ingest, REST, 1 a request, 3 connections"][-1])
    assert rows_of(out)["ingest, gRPC, 20 a request, 2 in flight"][-1] == "0"
    assert "NIMBUS_RATE_LIMIT_ENABLED" in out


@pytest.mark.parametrize("repeating", [False, True])
def test_every_request_brings_new_events(repeating: bool) -> None:
    def keys_in_json(raw: bytes) -> list[tuple[str, str]]:
        return [(e["idempotency_key"], e["ts"]) for e in orjson.loads(raw)["events"]]

    def keys_in_proto(raw: bytes) -> list[tuple[str, str]]:
        events = IngestEventsRequest.FromString(raw).events
        return [(e.idempotency_key, f"{e.ts.ToDatetime():%Y-%m-%dT%H:%M:%S.%f}Z") for e in events]

    for encode, keys_of in ((as_json, keys_in_json), (as_proto, keys_in_proto)):
        requests = Requests(encode, "a project", 50, repeating=repeating)
        sent = [key for _ in range(2 * SLOTS + 10) for key in keys_of(requests.next())]
        new = list(dict.fromkeys(sent))
        assert new == sorted(new, key=lambda key: key[1])
        assert len({key for key, _ in new}) == len(new)
        assert len(sent) - len(new) == (len(sent) // 10 if repeating else 0)
