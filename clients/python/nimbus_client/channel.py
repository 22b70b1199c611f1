"""Channels that sign every call over the very bytes that travel.

An interceptor can't: it sees the message, and a message serialized twice may come out as different bytes (maps have no
order). So a signed channel serializes a request once, signs the bytes and hands gRPC those bytes to send.
"""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from nimbus_client.signing import signature_headers

Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]
Metadata = Iterable[tuple[str, str | bytes]]

OPTIONS = (
    # An answer may exceed gRPC's 4 MiB: a single event can have half a megabyte, as Struct.
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    # gRPC's own waits grow to two minutes: a server that came back would stay unseen beyond a call's deadline.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def signed_channel(
    target: str,
    key_id: str,
    secret: str,
    *,
    secure: bool = False,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.Channel:
    """A channel for generated stubs whose calls are signed. TLS with `secure`, or with `credentials` of your own.

    Calls that stream requests go as they are: give them `signature_headers` over the bytes of their first message as
    metadata.
    """
    tls = _tls(secure, credentials)
    channel = grpc.secure_channel(target, tls, OPTIONS) if tls else grpc.insecure_channel(target, OPTIONS)
    return _SignedChannel(channel, key_id, secret)


def signed_aio_channel(
    target: str,
    key_id: str,
    secret: str,
    *,
    secure: bool = False,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """`signed_channel` for asyncio. Make it inside the event loop that uses it."""
    tls = _tls(secure, credentials)
    channel = grpc.aio.secure_channel(target, tls, OPTIONS) if tls else grpc.aio.insecure_channel(target, OPTIONS)
    return _SignedAioChannel(channel, key_id, secret)


def _tls(secure: bool, credentials: grpc.ChannelCredentials | None) -> grpc.ChannelCredentials | None:
    return grpc.ssl_channel_credentials() if secure and credentials is None else credentials


class _SignedCall:
    """Stands in for the multi-callable of a unary request, of any kind: sync or aio, unary or streamed response."""

    def __init__(self, call: Any, method: str, serialize: Serializer | None, key_id: str, secret: str) -> None:
        self._call = call
        self._method = method
        self._serialize = serialize
        self._key_id = key_id
        self._secret = secret

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **options: Any
    ) -> Any:
        body, signed = self._signed(request, metadata)
        return self._call(body, timeout=timeout, metadata=signed, **options)

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **options: Any
    ) -> Any:
        body, signed = self._signed(request, metadata)
        return self._call.with_call(body, timeout=timeout, metadata=signed, **options)

    def future(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **options: Any
    ) -> Any:
        body, signed = self._signed(request, metadata)
        return self._call.future(body, timeout=timeout, metadata=signed, **options)

    def _signed(self, request: Any, metadata: Metadata | None) -> tuple[bytes, tuple[tuple[str, str | bytes], ...]]:
        body = request if self._serialize is None else self._serialize(request)
        headers = signature_headers(self._key_id, self._secret, self._method, body)
        return body, (*(metadata or ()), *headers.items())


class _Signing:
    """What both kinds of channel share. Generated stubs pass `_registered_method`, for a faster lookup in gRPC."""

    def __init__(self, channel: Any, key_id: str, secret: str) -> None:
        self._channel = channel
        self._key_id = key_id
        self._secret = secret

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        call = self._channel.unary_unary(method, None, response_deserializer, _registered_method)
        return _SignedCall(call, method, request_serializer, self._key_id, self._secret)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        call = self._channel.unary_stream(method, None, response_deserializer, _registered_method)
        return _SignedCall(call, method, request_serializer, self._key_id, self._secret)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.stream_unary(*args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.stream_stream(*args, **kwargs)


class _SignedChannel(_Signing, grpc.Channel):
    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.close()


class _SignedAioChannel(_Signing, grpc.aio.Channel):
    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        state: grpc.ChannelConnectivity = self._channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()
