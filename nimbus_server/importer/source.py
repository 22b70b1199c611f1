"""A file with history: its form, its name in identities, and its events in blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice
from pathlib import Path

from nimbus_server.clock import DAY, Clock, micros
from nimbus_server.errors import StartupError
from nimbus_server.importer.columns import Columns
from nimbus_server.importer.csv_rows import HeaderError, read_csv
from nimbus_server.importer.decode import Rejected, decode_records
from nimbus_server.importer.json_lines import read_json_lines
from nimbus_server.importer.lines import Lines
from nimbus_server.importer.record import Record
from nimbus_server.ingest.event import TS_MIN, NewEvent

# What one commit takes: about 70 ms, for which others who append to the project wait.
BLOCK_RECORDS = 8000
SOME_RECORDS = 50
BLOCK_BYTES = 8 * 1024 * 1024


class FileDamagedError(Exception):
    """A file can't be read to its end. The text is a sentence that says which, and why."""


class Format(StrEnum):
    """The form of a file."""

    JSONL = "jsonl"
    CSV = "csv"


SUFFIXES = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".json": Format.JSONL, ".csv": Format.CSV}
_READERS: dict[Format, Callable[[Lines], Iterator[Record]]] = {Format.JSONL: read_json_lines, Format.CSV: read_csv}


@dataclass(frozen=True, slots=True)
class Source:
    """A file to import, of `size` bytes. A compressed file has the `identity` that it has uncompressed."""

    path: Path
    format: Format
    size: int

    @property
    def identity(self) -> str:
        """What stands for the file in the identities of its lines."""
        return _without_gz(self.path)


@dataclass(frozen=True)
class Block:
    """Some records of a file, in order: what can be stored of them, and what can't.

    `records` is how many they are, `last_line` the line of the last one. `position` is how many bytes of the file had
    been read with them. `received_at` is in microseconds since 1970.
    """

    source: Source
    columns: Columns
    rejected: list[Rejected]
    records: int
    last_line: int
    position: int
    received_at: int

    @cached_property
    def events(self) -> list[NewEvent]:
        """What can be stored."""
        return self.columns.events()


def find_source(path: Path, form: Format | None) -> Source:
    """The file, of the form that its suffix tells where none is given.

    Raises StartupError where it can't be read, its form is not known, or its header is wrong.
    """
    if not path.exists():
        raise StartupError(f"{path} can't be read: No such file or directory.")
    form = form or SUFFIXES.get(Path(_without_gz(path)).suffix.lower())
    if form is None:
        raise StartupError(f"{path}: say with --format whether this is jsonl or csv; its name does not tell.")
    source = Source(path, form, path.stat().st_size)
    try:
        with Lines(path) as lines:
            next(_READERS[form](lines), None)
    except OSError as error:
        raise StartupError(f"{path} can't be read: {error.strerror}.") from None
    except HeaderError as error:
        raise StartupError(f"The header of {path} is wrong: {error}.") from None
    return source


def blocks_of(source: Source, clock: Clock, retention_days: int | None) -> Iterator[Block]:
    """The file from its beginning.

    Raises FileDamagedError after the last block that can be read, and OSError where the file is gone.
    """
    with Lines(source.path) as lines:
        records = _READERS[source.format](lines)
        while block := _read_block(source, lines, records, clock, retention_days):
            yield block
        if lines.damage is not None:
            raise FileDamagedError(f"{source.path} can't be read after line {lines.number}: {lines.damage}.")


def _read_block(
    source: Source, lines: Lines, records: Iterator[Record], clock: Clock, retention_days: int | None
) -> Block | None:
    """The next records; few where they are long."""
    now = micros(clock())
    ts_min = TS_MIN if retention_days is None else max(TS_MIN, now - retention_days * DAY)
    events: list[NewEvent] = []
    rejected: list[Rejected] = []
    count = size = last_line = 0
    while count < BLOCK_RECORDS and size < BLOCK_BYTES and (some := list(islice(records, SOME_RECORDS))):
        valid, refused = decode_records(some, source.identity, now, ts_min, count)
        events += valid
        rejected += refused
        count += len(some)
        size += sum([len(record.raw) for record in some])
        last_line = some[-1].line
    return Block(source, Columns.of(events), rejected, count, last_line, lines.position, now) if count else None


def _without_gz(path: Path) -> str:
    return path.stem if path.suffix.lower() == ".gz" else path.name
