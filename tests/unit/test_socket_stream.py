"""A socket whose client takes nothing is cut off, where the library would wait for it for ever."""

import asyncio
from unittest.mock import AsyncMock, Mock

import pytest

from nimbus_server.errors import worker_unavailable
from nimbus_server.stream import socket_stream
from nimbus_server.stream.subscription import Subscription


async def for_ever(*_arguments: object, **_options: object) -> None:
    await asyncio.get_running_loop().create_future()


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """A socket that can't be written to, and the patience of a test."""
    monkeypatch.setattr(socket_stream, "STALLED_SECONDS_MAX", 0.01)
    monkeypatch.setattr(socket_stream, "CLOSE_SECONDS_MAX", 0.01)
    return Mock(send=for_ever, wait_closed=AsyncMock())


async def test_while_it_streams(stalled: Mock) -> None:
    async def messages() -> object:
        yield b"{}"

    await socket_stream._send_all(stalled, Mock(Subscription, messages=messages))
    stalled.transport.abort.assert_called_once_with()


async def test_when_it_must_end(stalled: Mock) -> None:
    await socket_stream._end(stalled, worker_unavailable())
    stalled.transport.abort.assert_called_once_with()
