"""Files are read and decoded in a process of their own: one core decodes while another one's PostgreSQL stores.

A thread is slower by a fifth and more: Python runs one at a time.
"""

import asyncio
import pickle
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import IO, cast

from nimbus_server.importer.source import Block, FileDamagedError, Source

# -P: files that lie where the command is run are no modules.
READER = (sys.executable, "-P", "-m", "nimbus_server.importer.reader_process")
# About a block, so that the reader goes on while one is stored. Where a pipe has a fixed size, that stays.
PIPE_BYTES = 1024 * 1024


async def read_blocks(sources: Sequence[Source], retention_days: int | None) -> AsyncGenerator[Block, None]:
    """The blocks of all files, in order; the next one is read while one is in use.

    Raises FileDamagedError after the last block that can be read. Close it: it has a process.
    """
    reader = subprocess.Popen(  # noqa: S603, ASYNC220 - it is ours
        READER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pipesize=PIPE_BYTES,
    )
    task, blocks = cast("IO[bytes]", reader.stdin), cast("IO[bytes]", reader.stdout)
    with suppress(BrokenPipeError), task:
        pickle.dump((sources, retention_days), task)
    upcoming = asyncio.create_task(asyncio.to_thread(_receive, blocks))
    try:
        while (block := await upcoming) is not None:
            upcoming = asyncio.create_task(asyncio.to_thread(_receive, blocks))
            yield block
    finally:
        reader.kill()
        with suppress(FileDamagedError):
            await upcoming
        reader.wait()
        blocks.close()


def _receive(blocks: IO[bytes]) -> Block | None:
    try:
        received = pickle.load(blocks)  # noqa: S301 - from the process that was started for it
    except (EOFError, OSError, pickle.UnpicklingError):
        raise FileDamagedError("The process that reads the files has ended too early.") from None
    if isinstance(received, FileDamagedError):
        raise received
    block: Block | None = received
    if block is not None:
        block.events  # noqa: B018 - made here, while the database is waited for
    return block
