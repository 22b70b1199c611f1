"""Keys that every worker has seen and remembers are dead at once all the same, when they are rotated away."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from conftest import Account, Stack
from credentials import machine, signed
from outcomes import Outcome, rest_failure
from surface import RPCS
from transports import over_native_grpc, over_rest, send

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.errors import Reason

INGEST, LIST = RPCS["EventService.IngestEvents"], RPCS["EventService.ListEvents"]
KEY = {"name": "paid", "user_id": "ada", "idempotency_key": "order-7"}
# Connections go to workers by chance and requests of the edge in turn: so many reach each of them.
CALLS = 24


def calls(stack: Stack, account: Account, key_id: str, secret: str, name: str = "x") -> list[Outcome]:
    fields = {"project_id": account.project_id, "events": [{"name": name}]}
    ways = [over_rest, over_native_grpc] * (CALLS // 2)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda way: way(stack, INGEST, fields, signed(key_id, secret)), ways))


def refused_as_unknown(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert outcome.failure is not None
        assert outcome.failure.reason == Reason.API_KEY_UNKNOWN
        assert outcome.answer is None or outcome.answer.status == 401


@pytest.mark.parametrize("times", [1, 2])
def test_a_key_in_use_is_refused_by_every_worker_once_it_is_rotated(stack: Stack, account: Account, times: int) -> None:
    key, stored = (account.api_key_id, account.api_key_secret), 0
    for _ in range(times):
        assert [outcome.response.accepted for outcome in calls(stack, account, *key)] == [1] * CALLS
        stored += CALLS
        rotated = send(stack, "POST", f"/v1/projects/{account.project_id}/rotate-keys", b"", account.bearer).json
        refused_as_unknown(calls(stack, account, *key))
        key = rotated["api_key_id"], rotated["api_key_secret"]
    listed = over_rest(stack, LIST, {"project_id": account.project_id}, signed(*key)).response
    assert listed.count == stored


def test_a_rotated_key_is_refused_also_where_no_event_could_be_stored(stack: Stack, account: Account) -> None:
    key = account.api_key_id, account.api_key_secret
    assert [outcome.response.rejected for outcome in calls(stack, account, *key, name="")] == [1] * CALLS
    send(stack, "POST", f"/v1/projects/{account.project_id}/rotate-keys", b"", account.bearer)
    refused_as_unknown(calls(stack, account, *key, name=""))


def test_what_was_sent_with_a_key_before_its_end_is_not_sent_again_with_it(stack: Stack, account: Account) -> None:
    body = json.dumps({"project_id": account.project_id, "events": [KEY]}).encode()
    headers = {"content-type": "application/json", **machine(account)("POST", "/v1/events", body)}
    assert send(stack, "POST", "/v1/events", body, headers).json["accepted"] == 1
    send(stack, "POST", f"/v1/projects/{account.project_id}/rotate-keys", b"", account.bearer)
    answer = send(stack, "POST", "/v1/events", body, headers)
    assert (answer.status, rest_failure(answer).reason) == (401, Reason.API_KEY_UNKNOWN)


@pytest.fixture
def channels(stack: Stack) -> Iterator[list[grpc.Channel]]:
    """Ten connections to the native port and ten to the edge."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    opened = [grpc.insecure_channel(t, options) for t in (stack.grpc_target, stack.edge_target) for _ in range(10)]
    yield opened
    for channel in opened:
        channel.close()


def test_the_same_key_100_times_at_once_from_20_connections_is_stored_once(
    stack: Stack, account: Account, channels: list[grpc.Channel]
) -> None:
    for ts in (None, 1_760_000_000):
        request = pb.IngestEventsRequest(project_id=account.project_id, events=[pb.Event(**KEY)], return_receipts=True)
        if ts:
            request.events[0].ts.seconds = ts
        body = request.SerializeToString()
        sign = machine(account)
        methods = [c.unary_unary(INGEST.wire, response_deserializer=INGEST.response.FromString) for c in channels]
        waiting = [
            methods[n % len(methods)].future(body, 60, tuple(sign("POST", INGEST.wire, body).items()))
            for n in range(100)
        ]
        responses = [future.result() for future in waiting]
        counted = sorted((r.accepted, r.duplicates) for r in responses)
        assert counted == [(0, 1)] * 99 + [(1, 0)]
        stored = [r.receipts[0].seq for r in responses if r.accepted]
        listed = over_rest(stack, LIST, {"project_id": account.project_id}, machine(account)).response
        assert listed.count == (2 if ts else 1)
        assert stored == [listed.count]
        assert stored[0] in {item.seq for item in listed.items}
