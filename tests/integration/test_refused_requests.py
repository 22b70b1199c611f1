"""The memory of a request that is refused is free again at once, without any garbage collection."""

from pathlib import Path

import grpc.aio
import psutil
import pytest
from one_worker import one_worker

INGEST = "/nimbus.v1.EventService/IngestEvents"
COUNT = 40
REQUEST_BYTES = 8 * 1024 * 1024


async def test_it_does_not_pile_up(dsn: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = (("x-api-key-id", "nbk_unknown"), ("x-api-timestamp", "1"), ("x-api-signature", "00" * 32))
    async with one_worker(dsn, scratch, monkeypatch) as one:
        rpc, request = one.channel.unary_unary(INGEST, None, None), bytes(REQUEST_BYTES)
        before = 0
        for number in range(COUNT):
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await rpc(request, metadata=stale)
            if number == COUNT // 4:
                before = psutil.Process().memory_info().rss
        assert psutil.Process().memory_info().rss - before < COUNT // 4 * REQUEST_BYTES
