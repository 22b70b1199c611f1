"""Clients that follow logs by every way out, and come back with their last position whenever they are cut off."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress

import grpc
import grpc.aio
import orjson
import psycopg
from conftest import Account, Stack

from nimbus.v1 import stream_service_pb2 as pb
from nimbus_client.channel import OPTIONS
from nimbus_client.signing import signature_headers

SUBSCRIBE = "/nimbus.v1.StreamService/SubscribeEvents"
ACK = "/nimbus.v1.StreamService/AckPosition"
# Each goes away by itself after about so long.
STAY_SECONDS = 2.0
# Silence after which a client takes the connection for dead.
SILENCE_SECONDS_MAX = 10.0
BACK_SECONDS = 0.1
THROUGH_SECONDS_MAX = 60.0
CUT_OFF = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}

# Positions reached, each with the positions and numbers of the events before it.
Messages = AsyncIterator[tuple[int, list[tuple[int, int]]]]


class CutOffError(Exception):
    """The stream broke."""


class Subscriber:
    """Follows one project's log from its beginning; `wrong` is what should not have been sent."""

    def __init__(self, name: str, account: Account, messages: Callable[["Subscriber"], Messages]) -> None:
        self.name = name
        self.account = account
        self.position = 0
        self.seen: list[tuple[int, int]] = []
        self.streams = 0
        self.wrong: list[str] = []
        self._messages = messages

    async def run(self) -> None:
        """Follow the log, until cancelled."""
        while True:
            self.streams += 1
            with suppress(TimeoutError, CutOffError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(random.uniform(0.2, 2 * STAY_SECONDS)):
                    await self._follow()
            await asyncio.sleep(BACK_SECONDS)

    def start_at(self, position: int) -> None:
        """Go on from a position that the server kept: what was seen behind it comes again."""
        self.position = position
        while self.seen and self.seen[-1][0] > position:
            self.seen.pop()

    def sign(self, path: str, body: bytes, method: str = "POST") -> dict[str, str]:
        return signature_headers(self.account.api_key_id, self.account.api_key_secret, path, body, http_method=method)

    def amiss(self, log: list[tuple[int, int]]) -> int:
        """How many events it saw otherwise than the table has them, or was sent what it should not."""
        missing, strange = sorted(set(log) - set(self.seen)), sorted(set(self.seen) - set(log))
        if missing or strange:
            self.wrong.append(f"{self.name}: has not seen {missing[:20]}, and nobody has sent {strange[:20]}")
        return len(missing) + len(strange) + (self.seen != log) + len(self.wrong)

    async def _follow(self) -> None:
        async with aclosing(self._messages(self)) as messages:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    position, events = await anext(messages)
                if position < self.position:
                    self.wrong.append(f"{self.name}: position {position} after {self.position}")
                self.seen += events
                self.position = position


async def over_grpc(one: Subscriber, target: str, consumer: str = "") -> Messages:
    """SubscribeEvents, with the position kept here, or by the server for a `consumer`."""
    request = pb.SubscribeEventsRequest(
        project_id=one.account.project_id,
        after_seq=one.position,
        props_form=pb.PROPS_FORM_JSON,
        heartbeat_seconds=1,
        consumer=consumer,
        consumer_conflict=pb.CONSUMER_CONFLICT_TAKE_OVER,
    ).SerializeToString()
    options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        call = channel.unary_stream(SUBSCRIBE, None, pb.SubscribeEventsResponse.FromString)(
            request, metadata=tuple(one.sign(SUBSCRIBE, request).items())
        )
        try:
            begun = False
            async for response in call:
                if consumer and not begun:
                    one.start_at(response.position)
                begun = True
                yield response.position, [(e.seq, orjson.loads(e.props_json)["n"]) for e in response.events]
                if consumer and random.random() < 0.3:
                    await _ack(one, channel, consumer)
        except grpc.aio.AioRpcError as error:
            _check(one, error)
        finally:
            call.cancel()
    raise CutOffError


async def over_sse(one: Subscriber, target: str) -> Messages:
    """GET /v1/events/stream. In HTTP/1.0 the edge ends a response with the connection, without chunks."""
    path = f"/v1/events/stream?project_id={one.account.project_id}&start=earliest&heartbeat_seconds=1"
    fields = one.sign(path, b"", "GET") | {"last-event-id": str(one.position)}
    host, _, port = target.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
    try:
        head = f"GET {path} HTTP/1.0\r\nhost: {target}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        writer.write(head.encode() + b"\r\n")
        status = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in status.partition(b"\r\n")[0]:
            if b" 503 " not in status and b" 504 " not in status:
                one.wrong.append(f"{one.name}: {status!r}")
            raise CutOffError
        while True:
            message = dict(
                line.split(": ", 1) for line in (await reader.readuntil(b"\n\n")).decode().split("\n") if line
            )
            if message["event"] == "error":
                one.wrong.append(f"{one.name}: {message}")
                raise CutOffError
            event = orjson.loads(message["data"])
            yield int(message["id"]), [(int(event["seq"]), event["props"]["n"])] if message["event"] == "event" else []
    finally:
        writer.close()


async def _ack(one: Subscriber, channel: grpc.aio.Channel, consumer: str) -> None:
    request = pb.AckPositionRequest(
        project_id=one.account.project_id, consumer=consumer, position=one.position
    ).SerializeToString()
    call = channel.unary_unary(ACK, None, pb.Consumer.FromString)
    await call(request, metadata=tuple(one.sign(ACK, request).items()), timeout=SILENCE_SECONDS_MAX)


def _check(one: Subscriber, error: grpc.aio.AioRpcError) -> None:
    told = dict(error.trailing_metadata() or ())
    # What breaks under an open stream is INTERNAL to gRPC: it comes from no server.
    broken = error.code() is grpc.StatusCode.INTERNAL and "x-request-id" not in told
    if error.code() not in CUT_OFF and not broken:
        one.wrong.append(f"{one.name}: {error.code()} {error.details()}")


def subscribers(stack: Stack, accounts: Iterable[Account]) -> list[Subscriber]:
    """One for each way out and each project."""
    ways: dict[str, Callable[[Subscriber], Messages]] = {
        "gRPC": lambda one: over_grpc(one, stack.grpc_target),
        "gRPC by Envoy": lambda one: over_grpc(one, stack.edge_target),
        "SSE": lambda one: over_sse(one, stack.edge_target),
        "consumer": lambda one: over_grpc(one, stack.grpc_target, "c"),
    }
    return [Subscriber(f"{name} {n}", account, way) for n, account in enumerate(accounts) for name, way in ways.items()]


async def followed(stack: Stack, readers: list[Subscriber], meanwhile: Awaitable[object]) -> dict[str, int]:
    """Let them follow while something is done, and then to the end. How much each saw wrongly: 0 is right."""
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    try:
        await meanwhile
        logs = {reader.account.project_id: _log(stack, reader.account) for reader in readers}
        with suppress(TimeoutError):
            async with asyncio.timeout(THROUGH_SECONDS_MAX):
                while any(len(reader.seen) < len(logs[reader.account.project_id]) for reader in readers):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    defects = [repr(error) for error in ended if not isinstance(error, asyncio.CancelledError)]
    return {f"seen wrongly by {r.name}": r.amiss(logs[r.account.project_id]) for r in readers} | {
        f"subscribers that broke: {defects}": len(defects)
    }


def _log(stack: Stack, account: Account) -> list[tuple[int, int]]:
    query = "SELECT seq, (props->>'n')::bigint FROM events WHERE project_id = %s ORDER BY seq"
    with psycopg.connect(stack.dsn()) as connection:
        return connection.execute(query, (account.project_id,)).fetchall()
