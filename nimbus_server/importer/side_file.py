"""What could not be stored, in files beside those that it comes from."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from nimbus_server.errors import StartupError
from nimbus_server.importer.source import Block, Source
from nimbus_server.terminal import visible

SUFFIX = ".rejected.jsonl"


class SideFiles:
    """One for each source, or one for all; each is made when something goes into it.

    A line is a JSON object: `file`, `line` and `lines` (the number of the first one, and how many), `field` (empty
    where it is the whole line), `reason`, `message`, `text`, and `text_cut` where the text has more than is kept of it.
    """

    def __init__(self, sources: Sequence[Source], one_for_all: Path | None) -> None:
        """Remove what an earlier run left. Raises StartupError where that can't be done, or is to be imported."""
        self.written: list[Path] = []
        self._one_for_all = one_for_all
        self._open: dict[Path, BinaryIO] = {}
        inodes = {source.inode for source in sources}
        earlier: list[Path] = []
        for path in map(self._path, sources):
            try:
                status = path.stat()
            except OSError:
                continue
            if (status.st_dev, status.st_ino) in inodes:
                raise StartupError(
                    f"{visible(str(path))} holds what an import refuses, so it can't be imported in the same run."
                )
            if stat.S_ISREG(status.st_mode):
                earlier.append(path)
        for path in earlier:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _not_writable(path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._open.values():
            file.close()

    def add(self, block: Block) -> None:
        """Write down what of a block is refused. Raises StartupError where that can't be done."""
        if not block.rejected:
            return
        path = self._path(block.source)
        records = [
            {
                "file": _encodable(block.source.name.name),
                "line": rejected.line,
                "lines": rejected.lines,
                "field": _encodable(rejected.field),
                "reason": rejected.reason,
                "message": _encodable(rejected.message),
                "text": rejected.raw.decode(errors="backslashreplace"),
                **({} if rejected.whole else {"text_cut": True}),
            }
            for rejected in block.rejected
        ]
        try:
            if path not in self._open:
                self._open[path] = _open(path)
                self.written.append(path)
            self._open[path].writelines(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)
            self._open[path].flush()
        except OSError as error:
            raise _not_writable(path, error) from None

    def _path(self, source: Source) -> Path:
        return self._one_for_all or source.name.with_name(source.name.name + SUFFIX)


def _open(path: Path) -> BinaryIO:
    """Open it for writing. A pipe that nobody reads raises OSError: to wait for a reader could not be stopped."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "wb")


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _not_writable(path: Path, error: OSError) -> StartupError:
    return StartupError(
        f"{visible(str(path))}, for what is refused, can't be written: {error.strerror}. Name another with --rejected."
    )
