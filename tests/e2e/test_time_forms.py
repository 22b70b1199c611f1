"""A time has the same forms wherever it is read: events, queries of REST and WebSockets, imports and commands."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from conftest import Account, Stack, new_account
from credentials import machine, person
from importing import run as run_import
from outcomes import Answer, rest_failure
from sockets import Message, reason_of, receive, socket_at
from surface import RPCS
from tailing import local, run
from transports import over_rest, send

from nimbus_server.errors import Reason

INGEST, LIST = RPCS["EventService.IngestEvents"], RPCS["EventService.ListEvents"]
NOON = datetime(2025, 11, 1, 12, 0, tzinfo=UTC)
# The same moment.
FORMS = [
    "2025-11-01T12:00:00Z",
    "2025-11-01T12:00:00z",
    "2025-11-01t12:00:00.000Z",
    "2025-11-01 12:00:00",
    "2025-11-01T12:00:00.000000000",
    "2025-11-01T12:00",
    "2025-11-01T11:59:60Z",
    "2025-11-01T17:30:00+05:30",
    "2025-11-01T04:00:00-08:00",
]
NO_TIMES = [
    *("2025-11-01", "20251101T120000Z", "2025-W44-6T12:00:00Z", "2025-11-01T24:00:00Z", "2025-11-01T12:00:00,5Z"),
    *("2025-11-01T12:00:61Z", "2025-11-01T12:00:00+0530", "2025-11-01T12:00:00+24:00", "2025-02-30T12:00:00Z"),
    *(" 2025-11-01T12:00:00Z", "2025-11-01T12:00:00Z ", "\uff12025-11-01T12:00:00Z", "yesterday", "1762000000"),
]
# Each route with a time in its query, by the name of the parameter.
QUERIES = [
    ("/v1/events", "since"),
    ("/v1/events", "until"),
    ("/v1/metrics", "start"),
    ("/v1/metrics", "end"),
    ("/v1/events/stream", "since"),
]


@pytest.fixture(scope="module")
def someone(stack: Stack) -> Account:
    """Someone with an event at each of three minutes, the second of them NOON."""
    account = new_account(stack)
    events = [{"name": "x", "ts": f"2025-11-01T{time}Z"} for time in ("11:59:00", "12:00:00", "12:01:00")]
    assert over_rest(stack, INGEST, {"project_id": account.project_id, "events": events}, machine(account)).response
    return account


def test_ts_and_sent_at_of_events(stack: Stack, account: Account) -> None:
    events = [{"name": f"{number}", "ts": form} for number, form in enumerate(FORMS)]
    body = {"project_id": account.project_id, "events": [*events, *({"name": "x", "ts": no} for no in NO_TIMES)]}
    response = over_rest(stack, INGEST, body, machine(account)).response
    assert (response.accepted, response.rejected) == (len(FORMS), len(NO_TIMES)), response
    assert {(error.field, error.reason) for error in response.errors} == {("ts", Reason.FIELD_INVALID)}
    items = over_rest(stack, LIST, {"project_id": account.project_id, "limit": 200}, machine(account)).response.items
    assert {item.ts.ToDatetime(UTC) for item in items} == {NOON}
    for times, status in ((FORMS, 200), (NO_TIMES, 400)):
        for time in times:
            body = {"project_id": account.project_id, "events": [{"name": "x"}], "sent_at": time}
            answer = send(stack, "POST", "/v1/events", json.dumps(body).encode(), account.bearer)
            assert answer.status == status, (time, answer)


@pytest.mark.parametrize("encode", [quote, quote_plus])
@pytest.mark.parametrize(("path", "name"), QUERIES)
def test_queries(stack: Stack, someone: Account, path: str, name: str, encode: Callable[[str], str]) -> None:
    def ask(time: str) -> Answer:
        bucket = "&bucket=1m" if path == "/v1/metrics" else ""
        target = f"{path}?project_id={someone.project_id}&{name}={encode(time)}{bucket}"
        return send(stack, "GET", target, None, machine(someone)("GET", target, b""))

    answers = [ask(form) for form in FORMS]
    assert {answer.status for answer in answers} == {200}
    if "stream" not in path:
        shown = [[item["ts"] for item in answer.json.get("items") or answer.json["series"]] for answer in answers]
        assert shown == shown[:1] * len(FORMS)
        assert len(shown[0]) == {"since": 2, "until": 1, "start": 2, "end": 1}[name]
    for time in [*NO_TIMES, ""]:
        answer = ask(time)
        assert answer.status == 400, (time, answer)
        failure = rest_failure(answer)
        assert (failure.reason, failure.violations) == (Reason.FIELD_INVALID, (name,)), (time, answer)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
@pytest.mark.parametrize(("path", "name"), QUERIES)
def test_moments_that_utc_has_no_year_for(stack: Stack, someone: Account, path: str, name: str, time: str) -> None:
    answer = send(stack, "GET", f"{path}?project_id={someone.project_id}&{name}={quote(time)}", None, someone.bearer)
    assert (answer.status, rest_failure(answer).reason) == (400, Reason.FIELD_INVALID)


def test_cursors(stack: Stack, someone: Account) -> None:
    start = f"/v1/events?project_id={someone.project_id}&after_id=ffffffff-ffff-ffff-ffff-ffffffffffff&after_ts="
    for form in FORMS:
        assert len(send(stack, "GET", start + quote(form), None, someone.bearer).json["items"]) == 2
    for time in NO_TIMES:
        assert send(stack, "GET", start + quote(time), None, someone.bearer).status == 400


async def test_websockets(stack: Stack, someone: Account) -> None:
    start = f"/ws/projects/{someone.project_id}?since="
    # Several at a time, because Envoy keeps each connection for a second after its end.
    turns = asyncio.Semaphore(4)

    async def first_message(time: str) -> Message:
        async with turns, socket_at(stack, start + quote(time), person(someone)) as socket:
            return await receive(socket)

    for message in await asyncio.gather(*map(first_message, FORMS)):
        assert message["type"] == "position", message
    for message in await asyncio.gather(*map(first_message, NO_TIMES)):
        assert reason_of(message) == Reason.FIELD_INVALID, message


def test_imports(stack: Stack, account: Account, tmp_path: Path) -> None:
    numbers = {"1762000000"}  # unix seconds, which history may have
    no_times = [time for time in NO_TIMES if time not in numbers]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"name": "x", "ts": time}) + "\n" for time in [*FORMS, *no_times]))
    _, said = run_import(stack, file, "--project", account.project_id)
    assert said.startswith(f"{len(FORMS)} events stored, 0 there already, {len(no_times)} refused"), said
    items = over_rest(stack, LIST, {"project_id": account.project_id, "limit": 200}, machine(account)).response.items
    assert {item.ts.ToDatetime(UTC) for item in items} == {NOON}


def test_tail(stack: Stack, someone: Account) -> None:
    """Few of them, because each is a program of its own: tests/unit/test_tail.py has all."""
    for form in ("2025-11-01 11:59:60.5", "2025-11-01t17:30+05:30"):
        status, out, _ = run(someone, *local(stack), "--since", form, "--limit", "3", TZ="UTC")
        assert (status, len(out.splitlines())) == (0, 3)
    status, _, said = run(someone, *local(stack), "--since", "2025-W44-6T12:00:00Z")
    assert (status, "--since takes a time such as" in said) == (1, True)
