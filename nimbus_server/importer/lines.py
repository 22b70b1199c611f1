"""The lines of what is imported, gunzipped where it is compressed."""

import gzip
import io
import select
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self, cast

# An event within the limits of ingest has less, every character escaped.
LINE_BYTES_MAX = 512 * 1024
BUFFER_BYTES = 256 * 1024
STANDARD_INPUT = 0

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class Lines:
    """The lines of a file or a pipe, as bytes with their line ends, without a byte order mark; to be read once.

    A line of more than LINE_BYTES_MAX comes cut to LINE_BYTES_MAX + 1 bytes; `rest` has what follows. `number` is that
    of the line given last, from 1. Input that can't be read to its end ends early; `damage` then says why.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the file, or standard input where there is no path; waits for the writer of a pipe. Raises OSError."""
        self.number = 0
        self.damage: str | None = None
        self._cut = False
        with ExitStack() as stack:
            self._input = stack.enter_context(_Input(path or STANDARD_INPUT, closefd=path is not None))
            self._lines = stack.enter_context(io.BufferedReader(cast("io.FileIO", self._input), BUFFER_BYTES))
            # The bytes tell, not the name: some programs decompress on the way and keep the name.
            if self._lines.peek(2)[:2] == _GZIP_MAGIC:
                unzipped = stack.enter_context(gzip.GzipFile(fileobj=self._lines))
                self._lines = stack.enter_context(io.BufferedReader(cast("io.FileIO", _Chunks(unzipped)), BUFFER_BYTES))
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def position(self) -> int:
        """Bytes that have been read, as they lie in the file."""
        return self._input.position

    def __iter__(self) -> Iterator[bytes]:
        read = self._lines.readline
        with self._until_damage():
            while line := read(LINE_BYTES_MAX + 1):
                self.number += 1
                if len(line) > LINE_BYTES_MAX:
                    self._cut = not line.endswith(b"\n")
                    yield line
                    deque(self.rest(), maxlen=0)
                else:
                    yield line.removeprefix(_BOM) if self.number == 1 else line

    def rest(self) -> Iterator[bytes]:
        """What follows of a line that came cut, in pieces: skipped unless it is read before the next line."""
        with self._until_damage():
            while self._cut:
                piece = self._lines.readline(LINE_BYTES_MAX)
                self._cut = bool(piece) and not piece.endswith(b"\n")
                yield piece

    @contextmanager
    def _until_damage(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            self.damage = getattr(error, "strerror", None) or str(error)


class _Input(io.FileIO):
    """Counts what is read, and waits for it also where the descriptor does not block."""

    position = 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # BufferedReader gives no other
        count = self._read(buffer)
        if count == 1 and self.position == 0:
            # A pipe may give less than a magic number at a time, and a look at a buffer reads no more.
            count += self._read(memoryview(buffer)[1:])
        self.position += count
        return count

    def _read(self, buffer: memoryview) -> int:
        while (count := cast("int | None", super().readinto(buffer))) is None:
            ready = select.poll()
            ready.register(self.fileno(), select.POLLIN)
            ready.poll()
        return count


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
