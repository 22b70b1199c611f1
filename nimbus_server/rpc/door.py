"""What requests hold in memory while they are answered: bounded, before anything of them is parsed."""

import asyncio

from nimbus_server.errors import overloaded

# Eight of the largest. The queue of events that wait for their commit takes half as much: it fills up first.
BYTES_MAX = 128 * 1024 * 1024


class Door:
    """Counts the bytes of requests from `enter` until `leave`."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._left = asyncio.Event()

    def enter(self, size: int) -> None:
        """Let a request in. Raises NimbusError with OVERLOADED where there is no room for it."""
        if self._bytes + size > self._bytes_max:
            raise overloaded()
        self._bytes += size

    async def enter_in_time(self, size: int) -> None:
        """Let a request in as soon as there is room for it."""
        while self._bytes + size > self._bytes_max:
            self._left.clear()
            await self._left.wait()
        self._bytes += size

    def leave(self, size: int) -> None:
        """Forget a request."""
        self._bytes -= size
        self._left.set()
