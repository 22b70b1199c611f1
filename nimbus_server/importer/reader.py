"""Files are read and decoded in a process of their own: one core decodes while another one's PostgreSQL stores.

A thread is slower by a fifth and more: Python runs one at a time.
"""

import asyncio
import os
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
    """The blocks of all sources, in order; the next one is read while one is in use.

    Raises FileDamagedError after the last block that can be read. Close it: it has a process.
    """
    theirs, ours = os.pipe()
    os.set_inheritable(theirs, True)
    reader = subprocess.Popen(  # noqa: S603, ASYNC220 - it is ours
        (*READER, str(theirs)),
        stdout=subprocess.PIPE,
        pipesize=PIPE_BYTES,
        # It has standard input, /dev/fd/63 and whatever else this process was given. What this process has opened
        # itself can't be inherited.
        close_fds=False,
    )
    os.close(theirs)
    task, blocks = os.fdopen(ours, "wb"), cast("IO[bytes]", reader.stdout)
    with suppress(BrokenPipeError):
        pickle.dump((sources, retention_days), task)
        task.flush()
    upcoming = asyncio.create_task(asyncio.to_thread(_receive, blocks))
    try:
        # Shielded: who is stopped while the input is idle waits for the thread below, once its process has ended.
        while (block := await asyncio.shield(upcoming)) is not None:
            upcoming = asyncio.create_task(asyncio.to_thread(_receive, blocks))
            yield block
    finally:
        reader.kill()
        await asyncio.gather(upcoming, return_exceptions=True)
        reader.wait()
        blocks.close()
        with suppress(BrokenPipeError):
            task.close()


def _receive(blocks: IO[bytes]) -> Block | None:
    try:
        received = pickle.load(blocks)  # noqa: S301 - from the process that was started for it
    except (EOFError, OSError, pickle.UnpicklingError):
        raise FileDamagedError("The process that reads has ended too early.") from None
    if isinstance(received, FileDamagedError):
        raise received
    block: Block | None = received
    if block is not None:
        block.events  # noqa: B018 - made here, while the database is waited for
    return block
