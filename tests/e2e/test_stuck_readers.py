"""Readers that never read, and many that have nothing to read: they take little, slow nobody, and leave nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import orjson
import psutil
import pytest
import requests
from conftest import Account, Stack, new_account

from nimbus.v1 import event_service_pb2 as events_pb
from nimbus.v1 import stream_service_pb2 as pb
from nimbus_client.signing import signature_headers

SUBSCRIBE = "/nimbus.v1.StreamService/SubscribeEvents"
INGEST = "/nimbus.v1.EventService/IngestEvents"
STUCK, IDLE = 10, 200
# Much more than it is, and much less than the log.
STUCK_BYTES_MAX = 4 * 1024 * 1024
IDLE_BYTES_MAX = 256 * 1024
LARGE = orjson.dumps({"x": "y" * 10_000})


def signed(account: Account, path: str, body: bytes) -> tuple[tuple[str, str], ...]:
    return tuple(signature_headers(account.api_key_id, account.api_key_secret, path, body).items())


def worker_bytes(stack: Stack) -> int:
    assert stack.process is not None
    children = psutil.Process(stack.process.pid).children()
    return sum(one.memory_info().rss for one in children if "worker-" in " ".join(one.cmdline()))


async def ingest(channel: grpc.aio.Channel, account: Account, count: int) -> None:
    events = [events_pb.Event(name="n", props_json=LARGE) for _ in range(count)]
    body = events_pb.IngestEventsRequest(project_id=account.project_id, events=events).SerializeToString()
    call = channel.unary_unary(INGEST, None, events_pb.IngestEventsResponse.FromString)
    answer = await call(body, metadata=signed(account, INGEST, body), timeout=30)
    assert answer.accepted == count


@asynccontextmanager
async def streams(
    channel: grpc.aio.Channel, account: Account, count: int, *, named: bool
) -> AsyncIterator[list[grpc.aio.UnaryStreamCall]]:
    """Open streams from the beginning of the log where they are named, else from its end; read the first message."""
    calls = []
    for n in range(count):
        start = {"after_seq": 0, "consumer": f"c{n}"} if named else {}
        body = pb.SubscribeEventsRequest(project_id=account.project_id, **start).SerializeToString()
        method = channel.unary_stream(SUBSCRIBE, None, pb.SubscribeEventsResponse.FromString)
        calls.append(method(body, metadata=signed(account, SUBSCRIBE, body)))
    try:
        await asyncio.gather(*(call.read() for call in calls))
        yield calls
    finally:
        for call in calls:
            call.cancel()


def active(account: Account) -> list[bool]:
    url = f"{account.url}/v1/projects/{account.project_id}/consumers"
    return [c["active"] for c in requests.get(url, headers=account.bearer, timeout=30).json()["items"]]


@pytest.mark.timeout(180)
async def test_readers_that_never_read_are_bounded_and_let_go(scratch: Path) -> None:
    stack = Stack(scratch / "data", {"NIMBUS_WORKERS": "1"}).start()
    try:
        account = new_account(stack)
        async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
            for _ in range(10):
                await ingest(channel, account, 200)
            before = worker_bytes(stack)
            async with streams(channel, account, IDLE, named=False):
                idle = worker_bytes(stack)
                async with streams(channel, account, STUCK, named=True):
                    assert active(account) == [True] * STUCK
                    for _ in range(10):
                        await ingest(channel, account, 200)
                    stuck = worker_bytes(stack)
                async with asyncio.timeout(8):
                    while any(active(account)):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
        print(
            f"idle: {(idle - before) / IDLE / 1024:.0f} KiB each; stuck: {(stuck - idle) / STUCK / 1024:.0f} KiB each"
        )
        assert (idle - before) / IDLE < IDLE_BYTES_MAX
        assert (stuck - idle) / STUCK < STUCK_BYTES_MAX + 64 * 1024 * 1024 / STUCK
    finally:
        stack.stop()


async def test_one_that_never_reads_is_cut_off_when_its_right_is_gone(stack: Stack, account: Account) -> None:
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        for _ in range(10):
            await ingest(channel, account, 200)
        async with streams(channel, account, 1, named=True) as (stuck,):
            assert active(account) == [True]
            url = f"{stack.url}/v1/projects/{account.project_id}/rotate-keys"
            assert (await asyncio.to_thread(requests.post, url, headers=account.bearer, timeout=30)).ok
            async with asyncio.timeout(20):
                while any(active(account)):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            # Behind what was on its way it finds the reason.
            with pytest.raises(grpc.aio.AioRpcError, match="There is no such API key"):
                await _read_on(stuck)


async def _read_on(stream: grpc.aio.UnaryStreamCall) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass
