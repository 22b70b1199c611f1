"""IngestEventStream: an acknowledgement a batch, in order, and an end with a reason that leaves nothing half done."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psycopg
import pytest
import requests
from conftest import Account, Stack, new_account
from google.rpc import error_details_pb2, status_pb2

from nimbus.v1 import event_service_pb2 as pb
from nimbus.v1.event_service_pb2_grpc import EventServiceStub
from nimbus_client import signature_headers

RPC = "/nimbus.v1.EventService/IngestEventStream"


def batch(account: Account, *keys: str, **fields: object) -> pb.IngestEventStreamRequest:
    events = [pb.Event(name="n", idempotency_key=key) for key in keys]
    return pb.IngestEventStreamRequest(**{"project_id": account.project_id, "events": events} | fields)


def signature(account: Account, first: pb.IngestEventStreamRequest) -> tuple[tuple[str, str], ...]:
    headers = signature_headers(account.api_key_id, account.api_key_secret, RPC, first.SerializeToString())
    return tuple(headers.items())


def reason_of(trailing: grpc.aio.Metadata) -> str:
    """The reason that an error's trailing metadata gives; empty where there is none."""
    details = status_pb2.Status.FromString(dict(trailing).get("grpc-status-details-bin", b"")).details
    return error_details_pb2.ErrorInfo.FromString(details[0].value).reason if details else ""


class Stream:
    """A stream that is written and read by hand."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Iterable[tuple[str, str]]) -> None:
        self._call = EventServiceStub(channel).IngestEventStream(metadata=tuple(metadata))

    async def send(self, *requests_: pb.IngestEventStreamRequest) -> None:
        for request in requests_:
            await self._call.write(request)

    async def ack(self) -> pb.IngestEventStreamResponse:
        return await self._call.read()

    async def end(self) -> list[pb.IngestEventStreamResponse]:
        """Send no more, and return what is still acknowledged."""
        await self._call.done_writing()
        acks = []
        while (ack := await self._call.read()) is not grpc.aio.EOF:
            acks.append(ack)
        return acks

    async def reason(self) -> str:
        """Why the server ends the stream, which must be all that is left to read."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            assert await self._call.read() is None
        return reason_of(caught.value.trailing_metadata())


async def rest(method: str, url: str, account: Account) -> None:
    """A call of a person's that must succeed."""
    response = await asyncio.to_thread(requests.request, method, url, headers=account.bearer, timeout=30)
    assert response.ok, response.text


@asynccontextmanager
async def opened(target: str, account: Account, first: pb.IngestEventStreamRequest) -> AsyncIterator[Stream]:
    """A signed stream whose first batch is acknowledged."""
    async with grpc.aio.insecure_channel(target) as channel:
        stream = Stream(channel, signature(account, first))
        await stream.send(first)
        assert (await stream.ack()).batch == 1
        yield stream


@pytest.mark.parametrize("edge", [False, True])
async def test_batches_are_acknowledged_in_order_and_stored_in_order(stack: Stack, edge: bool) -> None:
    account = new_account(stack)
    target = stack.edge_target if edge else stack.grpc_target
    batches = [batch(account, f"{n}-a", f"{n}-b", project_id="" if n else account.project_id) for n in range(50)]
    batches[7].events.add(name="")
    batches[9].return_receipts = True
    async with grpc.aio.insecure_channel(target) as channel:
        stream = Stream(channel, signature(account, batches[0]))
        sending = asyncio.create_task(stream.send(*batches))
        acks = [await stream.ack() for _ in batches]
        await sending
        assert await stream.end() == []
    assert [ack.batch for ack in acks] == list(range(1, 51))
    assert {(ack.result.accepted, ack.result.duplicates) for ack in acks} == {(2, 0)}
    assert [ack.batch for ack in acks if ack.result.rejected] == [8]
    assert [(r.index, r.outcome, r.seq) for r in acks[9].result.receipts] == [
        (0, pb.EVENT_OUTCOME_STORED, 19),
        (1, pb.EVENT_OUTCOME_STORED, 20),
    ]


async def test_unkeyed_events_of_a_stream_are_all_different(stack: Stack) -> None:
    account = new_account(stack)
    unkeyed = batch(account, events=[pb.Event(name="n")] * 3)
    async with opened(stack.grpc_target, account, unkeyed) as stream:
        await stream.send(unkeyed, unkeyed)
        assert [ack.result.accepted for ack in await stream.end()] == [3, 3]


BAD = {
    "BATCH_EMPTY": batch,
    "BATCH_TOO_LARGE": lambda account: batch(account, *map(str, range(1001))),
    "FIELD_INVALID": lambda account: batch(account, "k", project_id="00000000-0000-0000-0000-000000000001"),
}


@pytest.mark.parametrize("reason", BAD)
async def test_a_bad_batch_ends_the_stream_after_those_before_it(stack: Stack, reason: str) -> None:
    account = new_account(stack)
    async with opened(stack.grpc_target, account, batch(account, "1")) as stream:
        await stream.send(batch(account, "2"), batch(account, "3"), BAD[reason](account))
        assert [(await stream.ack()).batch for _ in range(2)] == [2, 3]
        assert await stream.reason() == reason


async def test_a_stream_needs_a_signature_over_its_first_message(stack: Stack) -> None:
    account, first = new_account(stack), batch(new_account(stack), "1")
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        for metadata, reason in (
            ((), "CREDENTIALS_MISSING"),
            (signature(account, batch(account, "other")), "SIGNATURE_MISMATCH"),
            (signature(account, first), "PROJECT_MISMATCH"),
        ):
            stream = Stream(channel, metadata)
            await stream.send(first)
            assert await stream.reason() == reason


@pytest.mark.parametrize("name", ["n", ""], ids=["valid", "refused"])
async def test_a_rotated_key_ends_its_streams(stack: Stack, name: str) -> None:
    account = new_account(stack)
    async with opened(stack.grpc_target, account, batch(account, "1")) as stream:
        await rest("POST", f"{stack.url}/v1/projects/{account.project_id}/rotate-key", account)
        await stream.send(batch(account, events=[pb.Event(name=name)]))
        assert await stream.reason() == "API_KEY_UNKNOWN"


async def test_a_logout_ends_the_streams_of_its_session(stack: Stack) -> None:
    account = new_account(stack)
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        stream = Stream(channel, account.bearer.items())
        await stream.send(batch(account, "1"))
        assert (await stream.ack()).result.accepted == 1
        await rest("POST", f"{stack.url}/v1/auth/logout", account)
        await stream.send(batch(account, "2"))
        assert await stream.reason() == "SESSION_ENDED"


async def test_a_deleted_project_ends_its_streams(stack: Stack) -> None:
    account = new_account(stack)
    async with opened(stack.grpc_target, account, batch(account, "1")) as stream:
        await rest("DELETE", f"{stack.url}/v1/projects/{account.project_id}", account)
        await stream.send(batch(account, "2"))
        assert await stream.reason() in {"API_KEY_UNKNOWN", "PROJECT_NOT_FOUND"}


async def test_a_server_that_stops_acknowledges_what_it_has_read_and_says_so(scratch: Path) -> None:
    own = Stack(scratch / "data", {"NIMBUS_WORKERS": "1", "NIMBUS_DRAIN_SECONDS": "20"}).start()
    account = new_account(own)
    async with (
        opened(own.grpc_target, account, batch(account, "1")) as stream,
        await psycopg.AsyncConnection.connect(own.dsn()) as holder,
        grpc.aio.insecure_channel(own.grpc_target) as channel,
    ):
        # While somebody holds the log, nothing can be acknowledged.
        await holder.execute("SELECT FROM streams WHERE project_id = %s FOR UPDATE", (account.project_id,))
        await stream.send(batch(account, "2"), batch(account, "3"))
        assert own.process is not None
        own.process.send_signal(signal.SIGTERM)
        while await takes_streams(channel, account):
            pass
        await holder.rollback()
        assert [(await stream.ack()).batch for _ in range(2)] == [2, 3]
        assert await stream.reason() == "WORKER_UNAVAILABLE"
    assert own.stop() == 0


async def takes_streams(channel: grpc.aio.Channel, account: Account) -> bool:
    """Whether a new stream, without a message, ends well."""
    call = EventServiceStub(channel).IngestEventStream(iter(()), metadata=signature(account, batch(account)))
    return await call.code() is grpc.StatusCode.OK
