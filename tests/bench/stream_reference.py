"""How many messages one process can send: a gRPC server whose one call sends ready-made bytes without end.

The first argument is the number of streams that it waits for before it begins.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from ready_made import MESSAGE

RPC = "/bench.Reference/Send"


class Sender:
    """Sends to all streams at once, once there are so many."""

    def __init__(self, streams: int) -> None:
        self._missing = streams
        self._begin = asyncio.Event()

    async def send(self, _request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield MESSAGE
        self._missing -= 1
        if self._missing == 0:
            self._begin.set()
        await self._begin.wait()
        while True:
            yield MESSAGE


async def main() -> None:
    service, _, method = RPC.removeprefix("/").partition("/")
    server = grpc.aio.server()
    handlers = {method: grpc.unary_stream_rpc_method_handler(Sender(int(sys.argv[1])).send)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)  # until whoever started this goes away


if __name__ == "__main__":
    asyncio.run(main())
