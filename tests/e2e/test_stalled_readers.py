"""Clients that open streams and read nothing cost the edge little, and nobody else anything."""

import base64
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from conftest import Account, Stack
from credentials import machine
from server_sent_events import opened, path_of
from sockets import ingest
from sockets import path_of as socket_path_of
from transports import read_response

COUNT = 6
BUFFERED_BYTES_MAX = 1024 * 1024
EVENTS = 1500


@contextmanager
def stalled(stack: Stack, account: Account, *, upgraded: bool) -> Iterator[None]:
    """A client that asks for the whole log and reads none of it."""
    path = (socket_path_of if upgraded else path_of)(account, start="earliest")
    fields = {"host": stack.edge_target, **account.bearer}
    if upgraded:
        key = base64.b64encode(os.urandom(16)).decode()
        fields |= {"upgrade": "websocket", "connection": "upgrade"}
        fields |= {"sec-websocket-version": "13", "sec-websocket-key": key}
    head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    host, _, port = stack.edge_target.partition(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(head.encode() + b"\r\n")
        yield


def buffered_at_the_edge(stack: Stack) -> int:
    """The bytes that Envoy holds for clients which do not take them."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(stack.data_dir / "run" / "envoy-admin.sock"))
        connection.sendall(
            b"GET /stats?filter=http.edge.downstream_cx_tx_bytes_buffered HTTP/1.1\r\nhost: edge\r\n\r\n"
        )
        return int(read_response(connection).body.split(b": ")[1])


@pytest.mark.parametrize("upgraded", [False, True], ids=["server-sent events", "WebSocket"])
def test_what_they_do_not_read_stays_where_it_is(stack: Stack, account: Account, upgraded: bool) -> None:
    for _ in range(EVENTS // 500):
        ingest(stack, account, [{"name": "big", "props": {"long": "x" * 10_000}}] * 500)
    with ExitStack() as clients:
        for _ in range(COUNT):
            clients.enter_context(stalled(stack, account, upgraded=upgraded))
        # While somebody else reads all of it twice, they have long got what they can get.
        for _ in range(2):
            with opened(stack, account, machine(account), start="earliest") as source:
                assert [int(event["seq"]) for event in source.events(EVENTS)] == list(range(1, EVENTS + 1))
        assert 0 < buffered_at_the_edge(stack) < COUNT * BUFFERED_BYTES_MAX
