"""Files are read and decoded in a process of their own: one core decodes while another one's PostgreSQL stores.

A thread is slower by a fifth and more: Python runs one at a time.
"""

import asyncio
import gc
import multiprocessing
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from nimbus_server.clock import now
from nimbus_server.importer.source import Block, FileDamagedError, Source, blocks_of


async def read_blocks(sources: Sequence[Source], retention_days: int | None) -> AsyncGenerator[Block, None]:
    """The blocks of all files, in order; the next one is read while one is in use.

    Raises FileDamagedError after the last block that can be read. Close it: it has a process.
    """
    # Not forked: this process has threads.
    processes = multiprocessing.get_context("spawn")
    receiver, sender = processes.Pipe(duplex=False)
    reader = processes.Process(target=_read, args=(sender, sources, retention_days), name="reader", daemon=True)
    reader.start()
    # Only the reader holds this end now: when it ends, whatever the reason, the other end says so.
    sender.close()
    upcoming = asyncio.create_task(asyncio.to_thread(_receive, receiver))
    try:
        while (block := await upcoming) is not None:
            upcoming = asyncio.create_task(asyncio.to_thread(_receive, receiver))
            yield block
    finally:
        reader.kill()
        with suppress(FileDamagedError):
            await upcoming
        reader.join()
        reader.close()
        receiver.close()


def _read(sender: Connection, sources: Sequence[Source], retention_days: int | None) -> None:
    # Ctrl-C reaches every process of a terminal; whoever receives the blocks says when it is enough.
    for asks in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asks, signal.SIG_IGN)
    # Tens of thousands of events live at a time, and none in a cycle.
    gc.disable()
    with suppress(BrokenPipeError):
        try:
            for source in sources:
                for block in blocks_of(source, now, retention_days):
                    sender.send(block)
        except (FileDamagedError, OSError) as error:
            sender.send(FileDamagedError(str(error)))
        else:
            sender.send(None)


def _receive(receiver: Connection) -> Block | None:
    try:
        received = receiver.recv()
    except (EOFError, OSError):
        raise FileDamagedError("The process that reads the files has ended too early.") from None
    if isinstance(received, FileDamagedError):
        raise received
    block: Block | None = received
    return block
