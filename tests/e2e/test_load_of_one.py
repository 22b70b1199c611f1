"""What one client sends costs the others nothing: no worker is blocked, filled up or cut off from its database."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import psycopg
import pytest
import requests
from conftest import Account, Stack

from nimbus_client import signature_headers

RPC = "/nimbus.v1.EventService/IngestEvents"


@pytest.fixture
def raw_ingest(stack: Stack) -> Iterator["grpc.UnaryUnaryMultiCallable[bytes, bytes]"]:
    with grpc.insecure_channel(stack.grpc_target) as channel:
        yield channel.unary_unary(RPC, None, None)


def test_a_strangers_message_is_not_even_parsed(raw_ingest: "grpc.UnaryUnaryMultiCallable[bytes, bytes]") -> None:
    no_message = b"\xff" * 1000
    with pytest.raises(grpc.RpcError) as refusal:
        raw_ingest(no_message, timeout=20)
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("rpc", ["AuthService/Register", "AuthService/Login", "MetricsService/QueryMetrics"])
def test_a_call_that_carries_no_events_takes_no_large_request(stack: Stack, rpc: str) -> None:
    with grpc.insecure_channel(stack.grpc_target) as channel, pytest.raises(grpc.RpcError) as refusal:
        channel.unary_unary(f"/nimbus.v1.{rpc}", None, None)(b"\x0a\x00" * 100_000, timeout=20)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    answer = requests.post(f"{stack.url}/v1/auth/register", json={"email": "x" * 200_000}, timeout=20)
    assert answer.status_code == 400


@pytest.mark.parametrize("zeros", [33_000, 4_000_000])
def test_props_that_are_far_too_large_are_refused_with_their_event_alone(
    stack: Stack, account: Account, zeros: int
) -> None:
    body = b'{"project_id": "%s", "events": [{"name": "good"}, {"name": "huge", "props": {"a": [%s0]}}]}' % (
        account.project_id.encode(),
        b"0," * zeros,
    )
    headers = signature_headers(account.api_key_id, account.api_key_secret, "/v1/events", body)
    answer = requests.post(f"{stack.url}/v1/events", data=body, headers=headers, timeout=30).json()
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert (answer["errors"][0]["index"], answer["errors"][0]["reason"]) == (1, "FIELD_TOO_LONG")


def test_fields_in_the_query_of_a_post_are_refused_and_not_ignored(stack: Stack, account: Account) -> None:
    event = json.dumps({"project_id": account.project_id, "events": [{"name": "x"}]})
    for path in ("/v1/auth/login?email=a@example.com&password=secret-password", f"/v1/events?project_id={'0' * 32}"):
        answer = requests.post(stack.url + path, data=event, headers=account.bearer, timeout=20)
        assert (answer.status_code, answer.json()["details"][0]["reason"]) == (400, "FIELD_UNKNOWN")


def test_connections_that_died_while_idle_fail_no_call(stack: Stack, account: Account) -> None:
    def call(_: int) -> int:
        return requests.get(f"{stack.url}/v1/projects", headers=account.bearer, timeout=20).status_code

    with ThreadPoolExecutor(16) as many, psycopg.connect(stack.dsn(), autocommit=True) as administrator:
        assert set(many.map(call, range(100))) == {200}
        killed = administrator.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE application_name = 'nimbus' AND datname = 'nimbus' AND state = 'idle'"
        ).fetchone()
        assert killed is not None
        assert killed[0] >= 2
        assert [call(n) for n in range(20)] == [200] * 20
