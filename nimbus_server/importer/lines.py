"""The lines of a file, gunzipped where it is compressed."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self, cast

# An event within the limits of ingest has less, every character escaped.
LINE_BYTES_MAX = 128 * 1024
BUFFER_BYTES = 256 * 1024

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class Lines:
    """The lines of a file, as bytes with their line ends, without a byte order mark; to be iterated over once.

    A line of more than LINE_BYTES_MAX comes cut to LINE_BYTES_MAX + 1 bytes. `number` is that of the line given last,
    from 1. A file that can't be read to its end ends early; `damage` then says why.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises OSError."""
        self.number = 0
        self.damage: str | None = None
        with ExitStack() as stack:
            self._file = stack.enter_context(io.BufferedReader(io.FileIO(path), BUFFER_BYTES))
            self._lines = self._file
            # The bytes tell, not the name: some programs decompress on the way and keep the name.
            if self._file.peek(2)[:2] == _GZIP_MAGIC:
                unzipped = stack.enter_context(gzip.GzipFile(fileobj=self._file))
                self._lines = stack.enter_context(io.BufferedReader(cast("io.FileIO", _Chunks(unzipped)), BUFFER_BYTES))
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def position(self) -> int:
        """Bytes of the file, as it lies there, that have been read."""
        return self._file.tell()

    def __iter__(self) -> Iterator[bytes]:
        read = self._lines.readline
        try:
            while line := read(LINE_BYTES_MAX + 1):
                self.number += 1
                if len(line) > LINE_BYTES_MAX:
                    rest = line
                    while rest and not rest.endswith(b"\n"):
                        rest = read(LINE_BYTES_MAX)
                yield line.removeprefix(_BOM) if self.number == 1 else line
        except (OSError, EOFError, zlib.error) as error:
            self.damage = str(error)


class _Chunks(io.RawIOBase):
    """Gives out what was unzipped before it meets damage: GzipFile alone would lose what lies in its buffer."""

    def __init__(self, unzipped: gzip.GzipFile) -> None:
        self._unzipped = unzipped

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # BufferedReader gives no other
        chunk = self._unzipped.read1(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)
