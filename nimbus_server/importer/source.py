"""What is imported: its form, its name in identities, and its events in blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice
from math import inf
from pathlib import Path
from time import monotonic

from nimbus_server.clock import DAY, Clock, micros
from nimbus_server.importer.columns import Columns
from nimbus_server.importer.csv_reader import HeaderError
from nimbus_server.importer.csv_rows import read_csv
from nimbus_server.importer.decode import Rejected, decode_records
from nimbus_server.importer.json_lines import read_json_lines
from nimbus_server.importer.lines import Lines
from nimbus_server.importer.names import without_gz
from nimbus_server.importer.record import Record
from nimbus_server.ingest.event import TS_MIN, NewEvent
from nimbus_server.terminal import visible

# What one commit takes: about 70 ms, for which others who append to the project wait.
BLOCK_RECORDS = 8000
SOME_RECORDS = 50
BLOCK_BYTES = 8 * 1024 * 1024
# A block of what comes slowly ends with the first records that are read after so long.
BLOCK_SECONDS = 1.0


class FileDamagedError(Exception):
    """A file can't be read to its end. The text is a sentence that says which, and why."""


class Format(StrEnum):
    """The form of a file."""

    JSONL = "jsonl"
    CSV = "csv"


SUFFIXES = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".json": Format.JSONL, ".csv": Format.CSV}
READERS: dict[Format, Callable[[Lines], Iterator[Record]]] = {Format.JSONL: read_json_lines, Format.CSV: read_csv}


@dataclass(frozen=True, slots=True)
class Source:
    """A file or pipe to import, or standard input where it has no `path`.

    `name` is what it is called: of a file, its path. `size` is in bytes, None where that is not known. `once` says that
    it can't be read again, and `inode` is the same for what is the same.
    """

    path: Path | None
    name: Path
    format: Format
    size: int | None
    once: bool
    inode: tuple[int, int]

    @property
    def identity(self) -> str:
        """What stands for it in the identities of its lines. A compressed file has the one that it has uncompressed."""
        return without_gz(self.name)


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


def blocks_of(source: Source, clock: Clock, retention_days: int | None) -> Iterator[Block]:
    """What there is, from its beginning.

    Raises FileDamagedError, after the last block that can be read, where it can't be read to its end.
    """
    shown = visible(str(source.name))
    try:
        with Lines(source.path) as lines:
            records = READERS[source.format](lines)
            while block := _read_block(source, lines, records, clock, retention_days):
                yield block
    except OSError as error:
        raise FileDamagedError(f"{shown} can't be read: {error.strerror}.") from None
    except HeaderError as error:
        raise FileDamagedError(f"The header of {shown} is wrong: {visible(str(error))}.") from None
    if lines.damage is not None:
        raise FileDamagedError(f"{shown} can't be read after line {lines.number:,}: {lines.damage}.")
    if source.size is not None and lines.position < source.size:
        raise FileDamagedError(f"{shown} has become shorter while it was read, and ends after line {lines.number:,}.")


def _read_block(
    source: Source, lines: Lines, records: Iterator[Record], clock: Clock, retention_days: int | None
) -> Block | None:
    """The next records; few where they are long, or come slowly."""
    events: list[NewEvent] = []
    rejected: list[Rejected] = []
    count = size = last_line = 0
    ends = inf
    while count < BLOCK_RECORDS and size < BLOCK_BYTES and monotonic() < ends:
        if not (some := list(islice(records, SOME_RECORDS))):
            break
        if not count:
            ends = monotonic() + BLOCK_SECONDS
            now = micros(clock())
            ts_min = TS_MIN if retention_days is None else max(TS_MIN, now - retention_days * DAY)
        valid, refused = decode_records(some, source.identity, now, ts_min, count)
        events += valid
        rejected += refused
        count += len(some)
        size += sum([len(record.raw) for record in some])
        last_line = some[-1].line
    return Block(source, Columns.of(events), rejected, count, last_line, lines.position, now) if count else None
