"""Clients that write and write, by every way in, and send again until they are acknowledged."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import grpc
import grpc.aio
import requests
from conftest import Account, Stack
from crash_batches import Batch, random_batch, random_size
from crash_ledger import Ledger
from google.protobuf.json_format import ParseDict
from tenacity import AsyncRetrying, RetryCallState

from nimbus.v1.event_service_pb2 import IngestEventsResponse, IngestEventStreamResponse
from nimbus_client import NimbusError
from nimbus_client.channel import OPTIONS
from nimbus_client.errors import nimbus_errors
from nimbus_client.retries import RetryPolicy
from nimbus_client.signing import signature_headers

UNARY = "/nimbus.v1.EventService/IngestEvents"
STREAM = "/nimbus.v1.EventService/IngestEventStream"
REST = "/v1/events"
# As the client library does it, but for as long as a signature is good.
POLICY = RetryPolicy(deadline_seconds=240.0, max_wait_seconds=1.0)
STREAM_AHEAD = 8
STREAM_BATCHES_MAX = 100
HTTP_CODES = {
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

Headers = dict[str, str]
Send = Callable[[bytes, Headers], Awaitable[IngestEventsResponse]]


@dataclass
class Writer:
    """A client that writes to one project: run `unary` or `stream`. Once `stopping` is set it ends in order."""

    name: str
    account: Account
    ledger: Ledger
    stopping: asyncio.Event
    unacked: deque[tuple[Batch, bytes]] = field(default_factory=deque)

    async def unary(self, path: str, encode: Callable[[Batch], bytes], send: Send) -> None:
        """One batch a call: signed anew for each attempt where every event has a key, else the very same bytes."""
        while not self.stopping.is_set():
            batch = self._next(keyed=random.random() < 0.5)
            body = encode(batch)
            once = self._sign(path, body)

            async def attempt(batch: Batch = batch, body: bytes = body, once: Headers = once) -> None:
                answer = await send(body, self._sign(path, body) if batch.keyed else once)
                self.ledger.acked(self.name, batch.project_id, batch.numbers, answer)

            await self._until_acknowledged(attempt)

    async def stream(self, channel: grpc.aio.Channel) -> None:
        """Batches with keys over streams, some ahead of their acknowledgements; a broken stream's are sent again."""
        open_stream = channel.stream_stream(STREAM, None, IngestEventStreamResponse.FromString)
        while not self.stopping.is_set():
            await self._until_acknowledged(partial(self._try_stream, open_stream))

    async def _try_stream(self, open_stream: grpc.aio.StreamStreamMultiCallable) -> None:
        try:
            await self._one_stream(open_stream)
        except NimbusError as error:
            # What breaks under an open stream is INTERNAL to gRPC: it comes from no server.
            if error.code is not grpc.StatusCode.INTERNAL or error.reason:
                raise
            raise NimbusError(grpc.StatusCode.UNAVAILABLE, error.message) from error

    async def _one_stream(self, open_stream: grpc.aio.StreamStreamMultiCallable) -> None:
        if not self.unacked:
            self._add()
        window = asyncio.Semaphore(STREAM_AHEAD - len(self.unacked))
        with nimbus_errors():
            call = open_stream(metadata=tuple(self._sign(STREAM, self.unacked[0][1]).items()))
            sender = asyncio.create_task(self._send_stream(call, window))
            try:
                async for response in call:
                    batch, _ = self.unacked.popleft()
                    self.ledger.acked(self.name, batch.project_id, batch.numbers, response.result)
                    window.release()
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
        if self.unacked:
            raise NimbusError(grpc.StatusCode.UNKNOWN, "a stream ended in order before all was acknowledged")

    async def _send_stream(self, call: grpc.aio.StreamStreamCall, window: asyncio.Semaphore) -> None:
        for _, body in list(self.unacked):
            await call.write(body)
        for _ in range(random.randrange(STREAM_BATCHES_MAX)):
            await window.acquire()
            if self.stopping.is_set():
                break
            await call.write(self._add())
        await call.done_writing()

    def _add(self) -> bytes:
        batch = self._next(keyed=True)
        self.unacked.append((batch, batch.stream_proto()))
        return self.unacked[-1][1]

    def _next(self, *, keyed: bool) -> Batch:
        batch = random_batch(self.account.project_id, self.ledger.new_events(random_size()), keyed=keyed)
        self.ledger.sent(batch.project_id, batch.numbers)
        return batch

    async def _until_acknowledged(self, attempt: Callable[[], Awaitable[None]]) -> None:
        try:
            await AsyncRetrying(**POLICY.options(), after=self._count)(attempt)
        except NimbusError as error:
            self.ledger.refused.append(f"{self.name}: {error}")
            self.unacked.clear()

    def _count(self, _: RetryCallState) -> None:
        self.ledger.failed_attempts += 1

    def _sign(self, path: str, body: bytes) -> Headers:
        return signature_headers(self.account.api_key_id, self.account.api_key_secret, path, body)


def writers(
    stack: Stack, accounts: list[Account], ledger: Ledger, stopping: asyncio.Event
) -> Iterator[tuple[str, Awaitable[None]]]:
    """One for each way in and each project: their names, and what to run."""
    for place, account in enumerate(accounts):
        for name, target in (("gRPC", stack.grpc_target), ("gRPC by Envoy", stack.edge_target)):
            writer = Writer(f"{name} {place}", account, ledger, stopping)
            yield writer.name, _over_grpc(writer, target)
            writer = Writer(f"stream {name} {place}", account, ledger, stopping)
            yield writer.name, _over_stream(writer, target)
        writer = Writer(f"REST {place}", account, ledger, stopping)
        yield writer.name, _over_rest(writer)


async def _over_grpc(writer: Writer, target: str) -> None:
    async with grpc.aio.insecure_channel(target, _options(writer)) as channel:
        call = channel.unary_unary(UNARY, None, IngestEventsResponse.FromString)

        async def send(body: bytes, headers: Headers) -> IngestEventsResponse:
            with nimbus_errors():
                return await call(body, timeout=POLICY.attempt_seconds, metadata=tuple(headers.items()))

        await writer.unary(UNARY, Batch.proto, send)


async def _over_stream(writer: Writer, target: str) -> None:
    async with grpc.aio.insecure_channel(target, _options(writer)) as channel:
        await writer.stream(channel)


async def _over_rest(writer: Writer) -> None:
    url = writer.account.url + REST
    with requests.Session() as session:

        def post(body: bytes, headers: Headers) -> IngestEventsResponse:
            try:
                answer = session.post(url, body, headers=headers, timeout=POLICY.attempt_seconds)
            except requests.RequestException as error:
                raise NimbusError(grpc.StatusCode.UNAVAILABLE, repr(error)) from None
            if answer.status_code == 200:
                return ParseDict(answer.json(), IngestEventsResponse())
            raise NimbusError(
                HTTP_CODES.get(answer.status_code, grpc.StatusCode.UNKNOWN),
                f"{answer.status_code} {answer.text}",
                retry_after_seconds=float(answer.headers.get("retry-after", 0)),
            )

        async def send(body: bytes, headers: Headers) -> IngestEventsResponse:
            return await asyncio.to_thread(post, body, headers)

        await writer.unary(REST, Batch.json, send)


def _options(writer: Writer) -> list[tuple[str, object]]:
    # A connection of its own, as if in a process of its own.
    return [*OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("grpc.primary_user_agent", writer.name)]
