"""Server-sent events, as curl and every browser read them."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from conftest import Account, Stack
from credentials import Credentials, machine, nobody, person
from outcomes import rest_failure
from server_sent_events import opened, path_of, read
from sockets import ingest, listed, stream_token
from transports import send

from nimbus_server.errors import Reason

SENT: list[dict[str, object]] = [
    {"name": "page_view", "user_id": "ada", "props": {"page": "/ü\n\u2028", "n": [1, 2.5, None]}},
    {"name": "signup", "ts": "2026-01-02T03:04:05Z", "props": {"plan": "pro", "seats": 2}},
    {"name": "signup", "ts": "2026-01-02T03:04:05.678Z", "user_id": "bob", "props": {"plan": "free"}},
]


def test_events_are_what_the_list_shows_first_stored_ones_then_live_ones(stack: Stack, account: Account) -> None:
    ingest(stack, account, [SENT[0] | {"idempotency_key": "k"}, *SENT[1:]])
    with opened(stack, account, person(account), start="earliest") as source:
        assert source.events(3) == listed(stack, account)
        started = time.monotonic()
        ingest(stack, account, SENT[1:2])
        assert source.events(1) == listed(stack, account)[3:]
        assert time.monotonic() - started < 5, "something on the way waits for more"


def test_a_client_that_comes_back_with_the_id_of_the_last_message_misses_nothing(
    stack: Stack, account: Account
) -> None:
    ingest(stack, account, SENT)
    with opened(stack, account, machine(account), after_seq=0) as source:
        assert [event["seq"] for event in source.events(2)] == ["1", "2"]
    ingest(stack, account, SENT)
    # A browser asks for the same address again, whatever position that names.
    with opened(stack, account, machine(account), "2", after_seq=0) as source:
        assert [event["seq"] for event in source.events(4)] == ["3", "4", "5", "6"]
    with opened(stack, account, machine(account), "6", start="earliest") as source:
        ingest(stack, account, SENT[:1])
        assert [event["seq"] for event in source.events(1)] == ["7"]


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ({"name": ["signup", "nope"]}, ["2", "3"]),
        ({"user_id": "bob"}, ["3"]),
        ({"props": json.dumps({"plan": "pro"})}, ["2"]),
        ({"name": "signup", "since": "2020-01-01T00:00:00Z"}, ["2", "3"]),
    ],
)
def test_filters_let_through_what_matches(
    stack: Stack, account: Account, query: dict[str, object], seqs: list[str]
) -> None:
    ingest(stack, account, SENT)
    beginning = {} if "since" in query else {"start": "earliest"}
    with opened(stack, account, machine(account), **beginning, **query) as source:
        assert [event["seq"] for event in source.events(len(seqs))] == seqs
        ingest(stack, account, [SENT[0], SENT[2] | {"props": {"plan": "pro"}}])
        assert [event["seq"] for event in source.events(1)] == ["5"]


def test_a_silent_stream_says_where_it_is_within_heartbeat_seconds(stack: Stack, account: Account) -> None:
    with opened(stack, account, machine(account), heartbeat_seconds=2, name="signup") as source:
        ingest(stack, account, SENT[:1])
        started = time.monotonic()
        beats = [next(source.messages) for _ in range(2)]
        assert time.monotonic() - started < 2 * 2 + 1
    assert (beats[-1].event, beats[-1].id) == ("position", "1")


WITHDRAWN: list[tuple[Callable[[Account], Credentials], str, Reason]] = [
    (machine, "POST /v1/projects/{}/rotate-key", Reason.API_KEY_UNKNOWN),
    (person, "POST /v1/auth/logout", Reason.SESSION_ENDED),
    (person, "DELETE /v1/projects/{}", Reason.PROJECT_NOT_FOUND),
]


@pytest.mark.parametrize("with_token", [False, True])
@pytest.mark.parametrize(("who", "call", "reason"), WITHDRAWN, ids=[call for _, call, _ in WITHDRAWN])
def test_access_that_is_withdrawn_ends_a_stream_with_the_reason(
    stack: Stack,
    account: Account,
    who: Callable[[Account], Credentials],
    call: str,
    reason: Reason,
    with_token: bool,
) -> None:
    credentials: tuple[Any, dict[str, Any]] = (who(account), {})
    if with_token:
        credentials = (nobody, {"token": stream_token(stack, account, who(account))})
    with opened(stack, account, credentials[0], **credentials[1]) as source:
        method, _, path = call.format(account.project_id).partition(" ")
        assert requests.request(method, stack.url + path, headers=account.bearer, timeout=30).ok
        error = list(source.messages)[-1]
    assert (error.event, error.id) == ("error", "")
    again = send(stack, "GET", path_of(account, **credentials[1]), headers=credentials[0]("GET", path_of(account), b""))
    assert error.data == again.json
    assert rest_failure(again).reason == reason


def test_a_token_stands_in_no_log(stack: Stack, account: Account) -> None:
    token = stream_token(stack, account, person(account), ttl_seconds=60)
    with opened(stack, account, nobody, token=token):
        pass
    refused = send(stack, "GET", path_of(account, token=token, after_seq=9))
    assert rest_failure(refused).reason == Reason.POSITION_AHEAD
    assert token.rpartition(".")[2] not in refused.body.decode()
    for log in (stack.data_dir / "logs").iterdir():
        assert token.rpartition(".")[2] not in log.read_text(errors="replace"), log


def test_a_token_opens_streams_of_its_project_and_nothing_else(stack: Stack, account: Account) -> None:
    token = stream_token(stack, account, machine(account))
    for headers, path in (
        ({"authorization": f"Bearer {token}"}, "/v1/auth/me"),
        ({"authorization": f"Bearer {token}"}, path_of(account)),
        ({}, f"/v1/events/stream?project_id={account.project_id}&token={account.access_token}"),
    ):
        answer = send(stack, "GET", path, None, headers)
        assert (answer.status, rest_failure(answer).reason) == (401, Reason.TOKEN_INVALID)
    another = path_of(account, token=token).replace(account.project_id, "00000000-0000-0000-0000-000000000001")
    assert rest_failure(send(stack, "GET", another)).reason == Reason.PROJECT_MISMATCH


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("heartbeat_seconds=16", Reason.FIELD_INVALID),
        ("after_seq=-1", Reason.FIELD_INVALID),
        ("after_seq=0&start=earliest", Reason.FIELD_INVALID),
        ("start=middle", Reason.FIELD_INVALID),
        ("props=%5B%5D", Reason.FIELD_INVALID),
        ("user_id=", Reason.FIELD_REQUIRED),
        ("name=" + "x" * 201, Reason.FIELD_TOO_LONG),
        ("since=yesterday", Reason.FIELD_INVALID),
        ("nope=1", Reason.FIELD_UNKNOWN),
        ("after_seq=1", Reason.POSITION_AHEAD),
    ],
)
def test_a_wrong_parameter_is_an_error_like_elsewhere(
    stack: Stack, account: Account, query: str, reason: Reason
) -> None:
    answer = send(stack, "GET", f"{path_of(account)}&{query}", None, account.bearer)
    assert (answer.status, rest_failure(answer).reason) == (400, reason)


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "٣", "9" * 19])
def test_an_id_that_is_none_of_this_stream_is_refused(stack: Stack, account: Account, wrong: str) -> None:
    answer = send(stack, "GET", path_of(account), None, {**account.bearer, "last-event-id": wrong})
    assert answer.status == 400, answer


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_curl_reads_a_stream(stack: Stack, account: Account, version: str) -> None:
    ingest(stack, account, SENT)
    protocol = {"1.1": "--http1.1", "2": "--http2-prior-knowledge"}[version]
    url = stack.url + path_of(account, start="earliest")
    authorization = f"authorization: Bearer {account.access_token}"
    command = ["curl", "-sS", "-N", "-i", protocol, "--max-time", "60", "-H", authorization, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        head = iter(lambda: curl.stdout.readline().rstrip("\r\n"), "")
        assert next(head).startswith(f"HTTP/{version} 200")
        headers = dict(line.lower().split(": ", 1) for line in head)
        messages = read(line.rstrip("\n") for line in curl.stdout)
        assert [next(messages).id for _ in range(4)] == ["0", "1", "2", "3"]
        ingest(stack, account, SENT[1:2])
        assert next(messages).data == listed(stack, account)[3]
        curl.terminate()
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"


def test_no_other_method_reads_a_stream(stack: Stack, account: Account) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert send(stack, method, path_of(account), None, account.bearer).status == 404
