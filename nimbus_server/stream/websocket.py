"""The WebSocket server behind the edge, which lets nothing but `/ws/projects/{project_id}` through to it."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

import orjson
from websockets import http11
from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event

from nimbus_server.errors import NimbusError, Reason, StartupError
from nimbus_server.rpc.status import error_json
from nimbus_server.stream.request import project_of
from nimbus_server.stream.socket_stream import CLOSE_SECONDS_MAX, STALLED_SECONDS_MAX, SocketStreams

PING_SECONDS = 20.0
CLIENT_MESSAGE_BYTES_MAX = 4096
# More of them are no sign of life: each is answered at once, into a buffer that the library does not bound.
PINGS_PER_SECOND_MAX = 10
# After a restart all of them come back at once.
BACKLOG = 4096
# Of what is sent, beside the one message that is on its way.
WRITE_BUFFER_BYTES = 64 * 1024

# What the edge lets through: a filter by props can be a long one.
http11.MAX_LINE_LENGTH = 64 * 1024
# The library's own log would have paths, and with them tokens.
_SILENT = logging.Logger("websockets", logging.CRITICAL + 1)  # noqa: LOG001 - one that no configuration reaches


class _Connection(ServerConnection):
    _pings = 0
    _pings_since = 0.0

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            now = self.loop.time()
            if now > self._pings_since + 1:
                self._pings, self._pings_since = 0, now
            self._pings += 1
            if self._pings > PINGS_PER_SECOND_MAX:
                self.transport.abort()
        super().process_event(event)


class WebSockets:
    """Serves sockets. Call `stop` after the streams' own end, so that their clients learn the reason."""

    def __init__(self, streams: SocketStreams) -> None:
        self._streams = streams
        self._server: Server | None = None
        self._ready = False

    async def start(self, path: Path) -> None:
        """Listen on a Unix socket; one that a dead process left is replaced. Raises StartupError."""
        try:
            self._server = await unix_serve(
                self._streams.serve,
                str(path),
                process_request=self._before_upgrade,
                create_connection=_Connection,
                compression=None,
                max_size=CLIENT_MESSAGE_BYTES_MAX,
                write_limit=WRITE_BUFFER_BYTES,
                ping_interval=PING_SECONDS,
                ping_timeout=STALLED_SECONDS_MAX,
                close_timeout=CLOSE_SECONDS_MAX,
                logger=_SILENT,
                server_header=None,
                backlog=BACKLOG,
            )
        except OSError as error:
            raise StartupError(f"Nimbus can't listen on {path}: {error.strerror}.") from None
        self._ready = True

    def go_unready(self) -> None:
        """Let the edge bring no more sockets; who comes before it knows is served."""
        self._ready = False

    async def stop(self, seconds: float) -> None:
        """Take no more, and give those that are open so long to end."""
        if self._server is None:
            return
        self._server.close(close_connections=False)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._server.wait_closed()
        for connection in list(self._server.all_connections):
            connection.transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await self._server.wait_closed()

    def _before_upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/health":
            return connection.respond(200 if self._ready else 503, "")
        if project_of(request.path):
            return None
        error = NimbusError(Reason.ROUTE_NOT_FOUND, "This API has no such route. /docs lists them.")
        response = connection.respond(404, orjson.dumps(error_json(error)).decode())
        del response.headers["content-type"]
        response.headers["content-type"] = "application/json"
        return response
