"""What could not be stored, in files beside those that it comes from."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from nimbus_server.errors import StartupError
from nimbus_server.importer.source import Block, Source

SUFFIX = ".rejected.jsonl"


class SideFiles:
    """One for each file, or one for all; each is made when something goes into it.

    A line is a JSON object: `file`, `line`, `field` (empty where it is the whole line), `reason`, `message`, `text`.
    """

    def __init__(self, sources: Sequence[Source], one_for_all: Path | None) -> None:
        """Remove what an earlier run left. Raises StartupError where that can't be done, or is to be imported."""
        self.written: list[Path] = []
        self._one_for_all = one_for_all
        self._open: dict[Path, BinaryIO] = {}
        paths = [self._path(source) for source in sources]
        for path in paths:
            if any(path.resolve() == source.path.resolve() for source in sources):
                raise StartupError(f"{path} holds what an import refuses, so it can't be imported in the same run.")
        for path in paths:
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
                "file": block.source.path.name,
                "line": rejected.line,
                "field": _printable(rejected.field),
                "reason": rejected.reason,
                "message": rejected.message,
                "text": rejected.raw.decode(errors="backslashreplace"),
            }
            for rejected in block.rejected
        ]
        try:
            if path not in self._open:
                self._open[path] = path.open("wb")
                self.written.append(path)
            self._open[path].writelines(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)
            self._open[path].flush()
        except OSError as error:
            raise _not_writable(path, error) from None

    def _path(self, source: Source) -> Path:
        return self._one_for_all or source.path.with_name(source.path.name + SUFFIX)


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _not_writable(path: Path, error: OSError) -> StartupError:
    return StartupError(
        f"{path}, for what is refused, can't be written: {error.strerror}. Name another with --rejected."
    )
