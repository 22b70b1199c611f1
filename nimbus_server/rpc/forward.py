"""Hands a call on to another process of Nimbus, over its Unix socket."""

from pathlib import Path

import grpc
from google.rpc.status_pb2 import Status

from nimbus_server.errors import deadline_exceeded
from nimbus_server.rpc.address import socket_address
from nimbus_server.rpc.status import error_of

OPTIONS = [
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    # One that was killed is back in a second or so; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# What a process that ends, or has ended, makes of a call that we did not cancel.
GONE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})


class Forwarder:
    """A connection to the process behind `socket`, which may come later, go away and come back.

    Make it while the event loop runs.
    """

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(socket_address(socket), options=OPTIONS)

    async def call(self, rpc: str, request: bytes, seconds: float, request_id: str) -> bytes | None:
        """The response, as it came; None where the process is away, or went away over this.

        `rpc` is the full name on the wire. A caller that is cancelled cancels the call there. Raises the NimbusError
        that the process raised, and DEADLINE_EXCEEDED after `seconds`.
        """
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(rpc)
        try:
            return await method(request, timeout=seconds, metadata=(("x-request-id", request_id),))
        except grpc.aio.AioRpcError as error:
            details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
            if isinstance(details, bytes) and (raised := error_of(Status.FromString(details))):
                raise raised from None
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise deadline_exceeded(seconds) from None
            if error.code() in GONE:
                return None
            raise

    async def close(self) -> None:
        """Cancel the calls in flight."""
        await self._channel.close()
