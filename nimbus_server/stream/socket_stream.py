"""One stream over one WebSocket, as JSON messages.

The server sends, as text:

    {"type": "position", "position": "N"}               where it starts, and every `heartbeat_seconds` of silence
    {"type": "events", "position": "N", "events": […]}  events as `GET /v1/events` shows them, and the position reached
    {"type": "error", "code", "message", "details"}     the JSON of an error, before it closes: with 4400, 4401, 4403,
                                                        4404, 4409 like an HTTP status, or 1011, 1012, 1013

A client may send `{"type": "ack", "position": "N"}` where it has named a consumer.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Collection
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, NoReturn

import orjson
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from nimbus_server import strict_json
from nimbus_server.consumers.store import ConsumerStore
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.rpc.admission import Admission
from nimbus_server.rpc.call import Call, log_end, told
from nimbus_server.rpc.fields import int_field
from nimbus_server.rpc.status import TABLE, error_json
from nimbus_server.stream.json_form import WEBSOCKET
from nimbus_server.stream.request import OPEN_SOCKET, SEQ_MAX, project_of, read_query, stream_wanted
from nimbus_server.stream.streams import Streams, Wanted
from nimbus_server.stream.subscription import Subscription

CLOSE_CODES = {
    Reason.WORKER_UNAVAILABLE: 1012,
    Reason.OVERLOADED: 1013,
    Reason.STORAGE_UNAVAILABLE: 1013,
    Reason.INTERNAL: 1011,
    Reason.CONSUMER_TAKEN_OVER: 4409,
}
# A client that takes nothing for so long is cut off: the library would wait for it for ever, and not even notice when
# it is gone.
STALLED_SECONDS_MAX = 60.0
CLOSE_SECONDS_MAX = 5.0
POSITION = re.compile(r"[0-9]{1,19}")
# From one acknowledgement that is written down to the next; of those between them only the last counts.
ACK_SECONDS = 0.1


class SocketStreams:
    """Carries on streams over sockets that are open."""

    def __init__(self, access: ProjectAccess, streams: Streams, consumers: ConsumerStore, admission: Admission) -> None:
        self._access = access
        self._streams = streams
        self._consumers = consumers
        self._admission = admission

    async def serve(self, socket: ServerConnection) -> None:
        """Carry on one stream over a socket that is open, and close it."""
        started = time.perf_counter()
        call = _call_of(socket)
        try:
            await self._stream(socket, call)
            log_end(call, started, "OK")
        except ConnectionClosed:
            log_end(call, started, "CANCELLED")
        except Exception as problem:  # noqa: BLE001 - told to the client as what it may know of it
            error = told(problem, call)
            log_end(call, started, TABLE[error.reason].code.name, error.reason)
            await _end(socket, error)

    async def _stream(self, socket: ServerConnection, call: Call) -> None:
        request, named = read_query(project_of(call.rest_path or ""), call.rest_query)
        if named and request.token:
            raise field_error(
                Reason.FIELD_INVALID, "consumer", "consumer takes a signature or an access token: `token` only reads."
            )
        who = await self._admission.admit(OPEN_SOCKET, call, b"", request)
        wanted = replace(stream_wanted(request, WEBSOCKET), consumer=named)
        await self._access.require(who, wanted.project_id)
        async with self._streams.open(wanted, who) as subscription:
            acks = _Acks(self._consumers, wanted)
            tasks = {
                asyncio.create_task(_send_all(socket, subscription)),
                asyncio.create_task(acks.read(socket)),
                asyncio.create_task(acks.write()),
            }
            try:
                done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end_tasks(tasks)
            await acks.flush()
            for task in done:
                if task.cancelled():
                    socket.transport.abort()  # the client took nothing, not even the end of its stream
                else:
                    task.result()


class _Acks:
    """What a client acknowledges, written down for its consumer from time to time."""

    def __init__(self, consumers: ConsumerStore, wanted: Wanted) -> None:
        self._consumers = consumers
        self._wanted = wanted
        self._position = -1
        self._noted = asyncio.Event()
        self._writing = asyncio.Lock()

    async def read(self, socket: ServerConnection) -> None:
        """Note what the client sends, until it goes away. Raises NimbusError."""
        with suppress(ConnectionClosedOK):
            while True:
                position = _acked(await socket.recv())
                if self._wanted.consumer is None:
                    raise NimbusError(Reason.REQUEST_UNPARSABLE, "This socket has no `consumer` to acknowledge for.")
                self._position = max(self._position, position)
                self._noted.set()

    async def write(self) -> NoReturn:
        """Write down what is noted, until cancelled. Raises NimbusError."""
        while True:
            await self._noted.wait()
            await self.flush()
            await asyncio.sleep(ACK_SECONDS)

    async def flush(self) -> None:
        """Write down what is noted now. Raises NimbusError."""
        async with self._writing:
            if not self._noted.is_set() or self._wanted.consumer is None:
                return
            position = self._position
            await self._consumers.ack(self._wanted.project_id, self._wanted.consumer.name, position, rewind=False)
            if position == self._position:
                self._noted.clear()


async def _end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    # Again if need be: Python 3.11 may lose it where the pool has a connection just then (python/cpython#81839).
    while not all(task.done() for task in tasks):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS_MAX)


async def _send_all(socket: ServerConnection, subscription: Subscription) -> None:
    async with aclosing(subscription.messages()) as messages:
        async for message in messages:
            await _send(socket, message)


async def _send(socket: ServerConnection, message: bytes) -> None:
    try:
        async with asyncio.timeout(STALLED_SECONDS_MAX):
            await socket.send(message, text=True)
    except TimeoutError:
        socket.transport.abort()
        await socket.wait_closed()


async def _end(socket: ServerConnection, error: NimbusError) -> None:
    code = CLOSE_CODES.get(error.reason) or 4000 + (TABLE[error.reason].http or 400)
    try:
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await socket.send(orjson.dumps({"type": "error", **error_json(error)}), text=True)
            await socket.close(code, error.reason.value)
    except TimeoutError:
        socket.transport.abort()
    except ConnectionClosed:
        pass  # it has gone by itself


def _call_of(socket: ServerConnection) -> Call:
    request = socket.request
    assert request is not None  # noqa: S101 - the handshake is done
    headers = {name.lower(): value for name, value in request.headers.raw_items() if value.isascii()}
    return Call(
        rpc=OPEN_SOCKET.name,
        request_id=headers.get("x-request-id") or str(uuid.uuid4()),
        metadata=headers,
        rest_method="GET",
        rest_path=request.path,
        deadline_seconds=None,
    )


def _acked(message: str | bytes) -> int:
    """The position in `{"type": "ack", "position": "N"}`. Raises NimbusError."""
    try:
        fields = strict_json.loads(message.encode() if isinstance(message, str) else message)
    except ValueError:
        fields = None
    if not (
        type(fields) is dict
        and fields.keys() == {"type", "position"}
        and fields["type"] == "ack"
        and POSITION.fullmatch(str(fields["position"]))
    ):
        raise NimbusError(Reason.REQUEST_UNPARSABLE, 'A client may send {"type": "ack", "position": "N"} and no more.')
    return int_field("position", int(fields["position"]), 0, SEQ_MAX)
