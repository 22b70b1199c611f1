"""Reads gRPC streams at next to no cost: gRPC's own client takes as much of the machine as the server that is measured.

HTTP/2 frames (RFC 9113 §4.1 and §6) and gRPC messages (grpc/doc/PROTOCOL-HTTP2.md). Windows are as large as can be, so
that nothing but the reader's pace holds the server up; one connection takes up to 2 GiB.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence

Headers = Sequence[tuple[str, str]]
# Takes the number of a stream, from 0, and a message.
OnMessage = Callable[[int, bytes], None]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
INITIAL_WINDOW_SIZE, WINDOW_MAX = 4, 2**31 - 1
FRAME_HEAD, MESSAGE_HEAD = 9, 5


class Http2Streams(asyncio.Protocol):
    """One connection with many calls, of one request and many responses each. `ended` has the reason if one ends."""

    def __init__(self, on_message: OnMessage) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        # What has come of a message that is not whole yet.
        self._parts: dict[int, bytearray] = {}
        self._count = 0

    def call(self, authority: str, rpc: str, request: bytes, metadata: Headers) -> None:
        """Begin a call; its responses go to `on_message` with the number of calls before it."""
        assert self._transport is not None
        stream = 2 * self._count + 1
        self._count += 1
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", rpc),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *metadata,
        ]
        message = struct.pack(">BI", 0, len(request)) + request
        self._transport.write(
            _frame(HEADERS, END_HEADERS, stream, b"".join(map(_literal, headers)))
            + _frame(DATA, END_STREAM, stream, message)
        )

    def close(self) -> None:
        """End all calls."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a TCP connection has a Transport
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW_MAX)
        window = struct.pack(">I", WINDOW_MAX - 65_535)
        assert self._transport is not None
        self._transport.write(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, window))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        received, at = self._received, 0
        received += data
        while len(received) - at >= FRAME_HEAD:
            end = at + FRAME_HEAD + int.from_bytes(received[at : at + 3])
            if len(received) < end:
                break
            kind, flags = received[at + 3], received[at + 4]
            stream = int.from_bytes(received[at + 5 : at + 9])
            self._frame_received(kind, flags, stream, bytes(received[at + FRAME_HEAD : end]))
            at = end
        del received[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end(f"the connection was lost: {exc}")

    def _frame_received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == DATA and not flags & PADDED:
            self._data_received((stream - 1) // 2, payload)
        elif kind in {SETTINGS, PING} and not flags & ACK:
            self._transport.write(_frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind in {RST_STREAM, GOAWAY} or (kind == HEADERS and flags & END_STREAM):
            self._end(f"frame of type {kind} on stream {stream}: {payload!r}")

    def _data_received(self, number: int, data: bytes) -> None:
        parts = self._parts.pop(number, None)
        if parts is not None:
            data = bytes(parts + data)
        at = 0
        while len(data) - at >= MESSAGE_HEAD:
            end = at + MESSAGE_HEAD + int.from_bytes(data[at + 1 : at + MESSAGE_HEAD])
            if len(data) < end:
                break
            self._on_message(number, data[at + MESSAGE_HEAD : end])
            at = end
        if at < len(data):
            self._parts[number] = bytearray(data[at:])

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _literal(header: tuple[str, str]) -> bytes:
    """A field without indexing and with a new name (RFC 7541 §6.2.2), for texts of less than 16,511 bytes."""
    return b"\x00" + b"".join(map(_text, header))


def _text(value: str) -> bytes:
    length = len(value)
    # An integer with a prefix of seven bits (RFC 7541 §5.1).
    if length < 127:
        return bytes((length,)) + value.encode()
    low, high = (length - 127) & 0x7F, (length - 127) >> 7
    return (bytes((127, low | 0x80, high)) if high else bytes((127, low))) + value.encode()
