"""Streams over WebSocket, read by hand, and what brings events into their log."""

import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import requests
from conftest import Account, Stack
from credentials import Credentials, machine
from surface import RPCS
from transports import over_rest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Message = dict[str, Any]

EVENTS_SECONDS_MAX = 20


def path_of(account: Account, **query: object) -> str:
    return f"/ws/projects/{account.project_id}" + ("?" + urlencode(query, doseq=True) if query else "")


@asynccontextmanager
async def socket_at(stack: Stack, path: str, who: Credentials, **options: Any) -> AsyncIterator[ClientConnection]:
    """A WebSocket at this path, which is what is signed."""
    headers = who("GET", path, b"")
    url = f"ws://{stack.edge_target}{path}"
    async with connect(url, additional_headers=headers, compression=None, **options) as socket:
        yield socket


@asynccontextmanager
async def opened(
    stack: Stack, account: Account, who: Credentials | None = None, /, **query: object
) -> AsyncIterator[ClientConnection]:
    """A stream that has begun: the position where it starts has been read."""
    async with socket_at(stack, path_of(account, **query), who or machine(account)) as socket:
        first = await receive(socket)
        assert first.keys() == {"type", "position"}, first
        assert first["type"] == "position"
        yield socket


async def receive(socket: ClientConnection) -> Message:
    message: Message = json.loads(await socket.recv(decode=True))
    return message


async def events(socket: ClientConnection, count: int) -> list[Message]:
    """So many events, whatever else is said between them."""
    got: list[Message] = []
    deadline = time.monotonic() + EVENTS_SECONDS_MAX
    while len(got) < count:
        assert time.monotonic() < deadline, f"only {len(got)} of {count} events in time"
        message = await receive(socket)
        if message["type"] == "events":
            assert message.keys() == {"type", "position", "events"}
            assert int(message["position"]) >= int(message["events"][-1]["seq"])
            got += message["events"]
        else:
            assert message["type"] == "position", message
    return got


async def end(socket: ClientConnection) -> tuple[int | None, Message]:
    """The code with which the server closes, and the error that it sends before, whatever it sends before that."""
    last: Message = {}
    try:
        while True:
            last = await receive(socket)
    except ConnectionClosed:
        return socket.close_code, last


def reason_of(error: Message) -> str:
    assert error["type"] == "error", error
    reason: str = error["details"][0]["reason"]
    return reason


def ingest(stack: Stack, account: Account, sent: Iterable[dict[str, object]]) -> None:
    """Store events, all at once and in this order."""
    fields = {"project_id": account.project_id, "events": list(sent)}
    response = over_rest(stack, RPCS["EventService.IngestEvents"], fields, machine(account)).response
    assert response.accepted == len(fields["events"])


def listed(stack: Stack, account: Account) -> list[Message]:
    """The items of `GET /v1/events` as they are on the wire, the oldest first."""
    answer = requests.get(
        f"{stack.url}/v1/events", params={"project_id": account.project_id}, headers=account.bearer, timeout=20
    )
    items: list[Message] = answer.json()["items"]
    return sorted(items, key=lambda item: int(item["seq"]))


def stream_token(stack: Stack, account: Account, who: Credentials, **fields: object) -> str:
    given = {"project_id": account.project_id, **fields}
    outcome = over_rest(stack, RPCS["StreamService.CreateStreamToken"], given, who)
    assert outcome.failure is None, outcome.failure
    token: str = outcome.response.token
    return token
