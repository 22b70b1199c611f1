"""A database that hangs: callers are told in time, memory stays flat, nothing is lost or doubled, and all recovers."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc
import psycopg
import pytest
import requests
from conftest import Account, Stack, new_account, own_stack
from google.rpc import error_details_pb2, status_pb2
from test_supervision import processes, wait_until

from nimbus.v1 import event_service_pb2 as pb
from nimbus.v1.event_service_pb2_grpc import EventServiceStub
from nimbus_client import signature_headers, signed_aio_channel
from nimbus_server.ingest.queue import BYTES_MAX, EVENTS_MAX, PROJECT_SHARE

BATCH = 1000
# More than a project's share of the queue takes.
CALLS = int(EVENTS_MAX * PROJECT_SHARE) // BATCH + 25
PATIENCE_SECONDS = 2.5


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    with own_stack({"NIMBUS_WORKERS": "1", "NIMBUS_REQUEST_TIMEOUT_SECONDS": str(PATIENCE_SECONDS)}) as stack:
        yield stack


@contextmanager
def hanging_postgres(stack: Stack) -> Iterator[None]:
    """Nothing of PostgreSQL moves, as on a disk or a host that hangs."""
    (postmaster,) = processes(stack, "/bin/postgres -D")
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


def batch(account: Account, call: int) -> pb.IngestEventsRequest:
    keys = (f"{call}-{n}" for n in range(BATCH))
    return pb.IngestEventsRequest(
        project_id=account.project_id,
        events=[pb.Event(name="n", idempotency_key=key) for key in keys],
    )


def retry_seconds(trailing: grpc.aio.Metadata) -> float:
    """What the RetryInfo of an error asks for."""
    for detail in status_pb2.Status.FromString(dict(trailing)["grpc-status-details-bin"]).details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            return delay.seconds + delay.nanos / 1e9
    raise AssertionError("no RetryInfo")


async def send(stub: EventServiceStub, request: pb.IngestEventsRequest) -> tuple[str, float]:
    """How a call ended, and after how many seconds."""
    started = time.monotonic()
    call = stub.IngestEvents(request, timeout=PATIENCE_SECONDS)
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        assert retry_seconds(await call.trailing_metadata()) > 0
    return code.name, time.monotonic() - started


@pytest.fixture
async def stub(own: Stack) -> AsyncIterator[tuple[Account, EventServiceStub]]:
    account = new_account(own)
    async with signed_aio_channel(own.grpc_target, account.api_key_id, account.api_key_secret) as channel:
        yield account, EventServiceStub(channel)


async def test_while_postgres_hangs_callers_are_told_in_time_and_memory_stays_flat(
    own: Stack, stub: tuple[Account, EventServiceStub]
) -> None:
    account, events = stub
    (worker,) = processes(own, "worker-0.sock")
    assert (await send(events, batch(account, 0)))[0] == "OK"
    before = worker.memory_info().rss
    peaks = []
    with hanging_postgres(own):
        for wave in range(2):
            requests_ = [batch(account, 1 + wave * CALLS + n) for n in range(CALLS)]
            ends = await asyncio.gather(*(send(events, request) for request in requests_))
            codes = Counter(code for code, _ in ends)
            assert set(codes) == {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}, codes
            assert max(seconds for _, seconds in ends) < PATIENCE_SECONDS
            peaks.append(worker.memory_info().rss)
    assert max(peaks) - before < 4 * BYTES_MAX
    assert peaks[1] - peaks[0] < BYTES_MAX / 4
    again = await send(events, batch(account, 10_000))
    while again[0] != "OK":
        again = await send(events, batch(account, 10_000))
    with psycopg.connect(own.dsn()) as connection:
        stored, keys, last_seq = connection.execute(
            "SELECT count(*), count(DISTINCT idempotency_key), max(seq) FROM events WHERE project_id = %s",
            (account.project_id,),
        ).fetchone()
    assert stored == keys == last_seq >= 2 * BATCH


def test_over_rest_it_is_503_with_retry_after_and_then_works_again(own: Stack) -> None:
    account = new_account(own)
    body = b'{"project_id": "%b", "events": [{"name": "n", "idempotency_key": "k"}]}' % account.project_id.encode()

    def post() -> requests.Response:
        headers = signature_headers(account.api_key_id, account.api_key_secret, "/v1/events", body)
        return requests.post(f"{own.url}/v1/events", body, headers=headers, timeout=30)

    assert post().json()["accepted"] == 1
    with hanging_postgres(own):
        refused = post()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["details"][0]["reason"] == "STORAGE_UNAVAILABLE"
    wait_until(lambda: post().status_code == 200)
    assert post().json()["duplicates"] == 1


@pytest.mark.parametrize("signed", [True, False])
def test_who_is_not_known_yet_is_told_in_time_as_well(own: Stack, signed: bool) -> None:
    account = new_account(own)
    body = b'{"project_id": "%b", "events": [{"name": "n"}]}' % account.project_id.encode()
    headers = account.bearer
    if signed:
        headers = signature_headers(account.api_key_id, account.api_key_secret, "/v1/events", body)
    with hanging_postgres(own):
        refused = requests.post(f"{own.url}/v1/events", body, headers=headers, timeout=30)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
