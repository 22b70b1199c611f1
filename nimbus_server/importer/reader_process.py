"""The process that reads and decodes.

Its argument is the descriptor of a pipe with the pickled arguments of blocks_of, its output are the blocks. Standard
input, and what else its parent was given, may be among what it reads.

It imports what it needs and no more, and has no part in what the process that starts it has imported: it would take
half a second to begin.
"""

import gc
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import BinaryIO

from nimbus_server.clock import now
from nimbus_server.importer.source import FileDamagedError, Source, blocks_of


def main() -> None:
    """Write all blocks, and then None, or FileDamagedError where the rest can't be read."""
    # Ctrl-C reaches every process of a terminal; whoever receives the blocks says when it is enough.
    for asks in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asks, signal.SIG_IGN)
    # Tens of thousands of events live at a time, and none in a cycle.
    gc.disable()
    task = os.fdopen(int(sys.argv[1]), "rb")
    sources, retention_days = pickle.load(task)  # noqa: S301 - from the process that started this one
    Thread(target=_end_with_parent, args=(task,), daemon=True).start()
    with suppress(BrokenPipeError), os.fdopen(sys.stdout.fileno(), "wb") as output:
        _write(output, sources, retention_days)


def _write(output: BinaryIO, sources: Sequence[Source], retention_days: int | None) -> None:
    try:
        for source in sources:
            for block in blocks_of(source, now, retention_days):
                pickle.dump(block, output, pickle.HIGHEST_PROTOCOL)
                output.flush()
    except FileDamagedError as error:
        pickle.dump(error, output)
    else:
        pickle.dump(None, output)


def _end_with_parent(task: BinaryIO) -> None:
    """Wait for the end of the task's pipe, which comes when the parent has died: an idle input would not tell."""
    # Not by its number alone: `main` may have returned by now, and with it would go the open file.
    os.read(task.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main()
