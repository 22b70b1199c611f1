"""The ways to make a call: REST, native gRPC, and gRPC and gRPC-web through Envoy."""

import base64
import http.client
import json
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, urlencode

import grpc
from conftest import Stack
from credentials import Credentials, nobody
from google.protobuf import json_format
from google.protobuf.message import Message
from outcomes import Answer, Outcome, grpc_outcome, rest_failure
from surface import Binding, Rpc

TIMEOUT_SECONDS = 20
MESSAGE_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 1024 * 1024))

Fields = Mapping[str, Any]
Transport = Callable[..., Outcome]
Enough = Callable[[bytes], bool]


def read_response(connection: socket.socket, method: str | None = None, enough: Enough | None = None) -> Answer:
    """One response: of server-sent events, which never end, the first one, and else up to what is `enough`."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    with response:
        headers = {name.lower(): value for name, value in response.getheaders()}
        if headers.get("content-type") == "text/event-stream":
            enough = _one_event
        if enough is None:
            return Answer(response.status, headers, response.read())
        body = b""
        while not enough(body) and (more := response.read1()):
            body += more
        return Answer(response.status, headers, body)


def _one_event(body: bytes) -> bool:
    return body.endswith(b"\n\n")


def send_raw(stack: Stack, request: bytes, source: str = "127.0.0.1", enough: Enough | None = None) -> Answer:
    """Send bytes to the edge as they are, and read one response, or what is enough of it."""
    host, _, port = stack.edge_target.partition(":")
    with socket.create_connection((host, int(port)), TIMEOUT_SECONDS, (source, 0)) as connection:
        with suppress(OSError):  # answered before all was sent
            connection.sendall(request)
        return read_response(connection, request.split(b" ", 1)[0].decode(errors="replace"), enough)


def send(
    stack: Stack,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    source: str = "127.0.0.1",
    enough: Enough | None = None,
) -> Answer:
    """One HTTP/1.1 request, the path as it is given."""
    length = {} if body is None else {"content-length": str(len(body))}
    fields = {"host": stack.edge_target, **length, **(headers or {})}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return send_raw(stack, head.encode() + b"\r\n" + (body or b""), source, enough)


def rest_request(rpc: Rpc, fields: Fields | bytes, binding: Binding | None = None) -> tuple[str, str, bytes | None]:
    """METHOD, path with query, and body that carry `fields` over REST; bytes are the body as it is."""
    binding = binding or rpc.bindings[0]
    if isinstance(fields, bytes):
        return binding.method, binding.path, fields
    path, rest = binding.path, dict(fields)
    for name in [name for name in rest if f"{{{name}}}" in path]:
        path = path.replace(f"{{{name}}}", quote(str(rest.pop(name)), safe=""))
    if binding.body:
        return binding.method, path, json.dumps(rest).encode()
    return binding.method, path + ("?" + urlencode(rest, doseq=True) if rest else ""), None


def over_rest(
    stack: Stack, rpc: Rpc, fields: Fields | bytes, credentials: Credentials = nobody, binding: Binding | None = None
) -> Outcome:
    method, path, body = rest_request(rpc, fields, binding)
    headers = {"content-type": "application/json", **credentials(method, path, body or b"")}
    return rest_outcome(rpc, send(stack, method, path, body, headers))


def rest_outcome(rpc: Rpc, answer: Answer) -> Outcome:
    request_id = answer.headers.get("x-request-id")
    if answer.status != 200:
        return Outcome(None, rest_failure(answer), request_id, answer)
    if rpc.gives_stream:
        assert answer.headers["content-type"] == "text/event-stream"
        response = rpc.response(content_type="text/event-stream", data=answer.body)
        return Outcome(response, None, request_id, answer)
    assert answer.headers["content-type"] == "application/json"
    return Outcome(json_format.ParseDict(answer.json, rpc.response()), None, request_id, answer)


def encoded(rpc: Rpc, fields: Fields | Message | bytes) -> bytes:
    if isinstance(fields, bytes):
        return fields
    message = fields if isinstance(fields, Message) else json_format.ParseDict(dict(fields), rpc.request())
    return message.SerializeToString()


def over_grpc(
    target: str, rpc: Rpc, fields: Fields | Message | bytes, credentials: Credentials = nobody, **metadata: str
) -> Outcome:
    """A stream is left after its first response. Names in `metadata` have underscores for dashes."""
    body = encoded(rpc, fields)
    given = {name.replace("_", "-"): value for name, value in metadata.items()}
    headers = tuple((credentials("POST", rpc.wire, body) | given).items())
    with grpc.insecure_channel(target, MESSAGE_OPTIONS) as channel:
        try:
            if rpc.takes_stream:
                stream = channel.stream_stream(rpc.wire, response_deserializer=rpc.response.FromString)
                call = stream(iter([body]), timeout=TIMEOUT_SECONDS, metadata=headers)
                (response,) = call  # to the one message there is
            elif rpc.gives_stream:
                method = channel.unary_stream(rpc.wire, response_deserializer=rpc.response.FromString)
                response = next(method(body, timeout=TIMEOUT_SECONDS, metadata=headers))
                return grpc_outcome(response, 0, "", {})
            else:
                method = channel.unary_unary(rpc.wire, response_deserializer=rpc.response.FromString)
                response, call = method.with_call(body, timeout=TIMEOUT_SECONDS, metadata=headers)
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            return grpc_outcome(None, error.code().value[0], error.details() or "", trailers)
        return grpc_outcome(response, 0, "", dict(call.trailing_metadata()))


def over_native_grpc(stack: Stack, rpc: Rpc, fields: Fields | bytes, credentials: Credentials = nobody) -> Outcome:
    return over_grpc(stack.grpc_target, rpc, fields, credentials)


def over_edge_grpc(stack: Stack, rpc: Rpc, fields: Fields | bytes, credentials: Credentials = nobody) -> Outcome:
    return over_grpc(stack.edge_target, rpc, fields, credentials)


def over_grpc_web(stack: Stack, rpc: Rpc, fields: Fields, credentials: Credentials = nobody) -> Outcome:
    return _grpc_web(stack, rpc, fields, credentials, text=False)


def over_grpc_web_text(stack: Stack, rpc: Rpc, fields: Fields, credentials: Credentials = nobody) -> Outcome:
    return _grpc_web(stack, rpc, fields, credentials, text=True)


def _grpc_web(stack: Stack, rpc: Rpc, fields: Fields, credentials: Credentials, *, text: bool) -> Outcome:
    """github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md, by hand."""
    body = encoded(rpc, fields)
    frame = struct.pack(">BI", 0, len(body)) + body
    kind = f"application/grpc-web{'-text' if text else '+proto'}"
    headers = {"content-type": kind, "accept": kind, "x-grpc-web": "1", **credentials("POST", rpc.wire, body)}

    def has_message(answered: bytes) -> bool:
        got = _decoded_pieces(answered) if text else answered
        return len(got) >= 5 and len(got) >= 5 + int.from_bytes(got[1:5]) and not got[0] & 0x80

    enough, sent = has_message if rpc.gives_stream else None, base64.b64encode(frame) if text else frame
    answer = send(stack, "POST", rpc.wire, sent, headers, enough=enough)
    response, trailers = None, answer.headers
    if answer.status != 200:  # refused by Envoy, before it was taken for gRPC-web
        rest, trailers["grpc-message"] = b"", answer.body.decode()
    else:
        rest = _decoded_pieces(answer.body) if text else answer.body
    while rest:
        flags, length = struct.unpack(">BI", rest[:5])
        part, rest = rest[5 : 5 + length], rest[5 + length :]
        if flags & 0x80:
            trailers = dict(line.split(":", 1) for line in part.decode().splitlines())
        else:
            response = rpc.response.FromString(part)
    trailers.setdefault("grpc-status", "0" if enough else "")  # there is none where a stream was left
    details = trailers.get("grpc-status-details-bin", "")
    found = {**trailers, "grpc-status-details-bin": base64.b64decode(details + "=" * (-len(details) % 4))}
    return grpc_outcome(response, int(trailers["grpc-status"]), unquote(trailers.get("grpc-message", "")), found)


def _decoded_pieces(text: bytes) -> bytes:
    """The bytes in base64 that was padded piece by piece."""
    return b"".join(base64.b64decode(text[i : i + 4]) for i in range(0, len(text) - 3, 4))


TRANSPORTS: dict[str, Transport] = {
    "REST": over_rest,
    "native gRPC": over_native_grpc,
    "gRPC through Envoy": over_edge_grpc,
    "gRPC-web": over_grpc_web,
    "gRPC-web-text": over_grpc_web_text,
}
