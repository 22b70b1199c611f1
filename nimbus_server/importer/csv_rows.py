"""CSV (RFC 4180) with a header: a row an event, a column a field or a property."""

import csv
from collections.abc import Iterator
from typing import Any, NamedTuple

from nimbus_server import strict_json
from nimbus_server.errors import Reason
from nimbus_server.importer.lines import LINE_BYTES_MAX, Lines
from nimbus_server.importer.record import Record, unparsable
from nimbus_server.ingest.event import EventRefusedError

FIELDS = {"name", "ts", "user_id", "idempotency_key", "id"}
PROPS_COLUMNS = {"props", "properties"}
REQUIRED = ("name", "ts")


class HeaderError(Exception):
    """The first row does not name the columns. The text says what is wrong with it."""


def read_csv(lines: Lines) -> Iterator[Record]:
    """Each row that is not blank, after the header. Raises HeaderError."""
    rows = _Rows(lines)
    header = next(rows, None)
    if header is None:
        return
    if isinstance(header.cells, EventRefusedError):
        raise HeaderError(header.cells.message)
    columns = _Columns([name.strip() for name in header.cells])
    for row in rows:
        yield Record(row.line, row.raw, columns.event(row.cells))


class _Columns:
    """What the header says."""

    def __init__(self, names: list[str]) -> None:
        if "" in names:
            raise HeaderError(f"column {names.index('') + 1} has no name")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise HeaderError(f"the column {twice[0]} comes twice")
        if PROPS_COLUMNS.issubset(names):
            raise HeaderError("there may be a column props or properties, not both")
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            raise HeaderError(f"the column {' and the column '.join(missing)} must be there")
        self._count = len(names)
        self._fields = [(n, names.index(n)) for n in names if n in FIELDS]
        self._properties = [(n, names.index(n)) for n in names if n not in FIELDS | PROPS_COLUMNS]
        self._props = next((names.index(n) for n in names if n in PROPS_COLUMNS), None)

    def event(self, cells: list[str] | EventRefusedError) -> dict[str, Any] | EventRefusedError:
        """The event in a row, or why there is none; an empty cell says nothing."""
        if isinstance(cells, EventRefusedError):
            return cells
        if len(cells) != self._count:
            return unparsable(f"The row has {len(cells)} cells, the header {self._count}.")
        event: dict[str, Any] = {name: cell for name, at in self._fields if (cell := cells[at])}
        props: dict[str, Any] = {name: cell for name, at in self._properties if (cell := cells[at])}
        if self._props is not None and (encoded := cells[self._props]):
            given = _json_object(encoded)
            if given is None:
                return EventRefusedError(
                    "props", Reason.FIELD_INVALID, "props must be a JSON object without a key twice."
                )
            both = given.keys() & props.keys()
            if both:
                return EventRefusedError("props", Reason.FIELD_INVALID, f"props has {min(both)}, a column too.")
            props = given | props
        event["props"] = props
        return event


class _Row(NamedTuple):
    """The cells of a row, or why it has none; `line` and `raw` as in Record."""

    line: int
    raw: bytes
    cells: list[str] | EventRefusedError


class _Rows:
    """The rows that are not blank."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._taken: list[bytes] = []
        # Strict: a quote in the wrong place is an error, and not half a file in one cell.
        self._cells = csv.reader(self._text(), strict=True)

    def __iter__(self) -> Iterator[_Row]:
        return self

    def __next__(self) -> _Row:
        while True:
            self._taken.clear()
            first = self._lines.number + 1
            cells: list[str] | EventRefusedError
            try:
                cells = next(self._cells)
            except csv.Error as error:
                cells = unparsable(f"The row is not valid CSV: {error}.")
            if any(len(line) > LINE_BYTES_MAX for line in self._taken):
                cells = unparsable(f"The row has a line of more than {LINE_BYTES_MAX} bytes.")
            if cells:
                return _Row(first, b"".join(self._taken).rstrip(b"\r\n"), cells)

    def _text(self) -> Iterator[str]:
        for line in self._lines:
            self._taken.append(line)
            # What is no UTF-8 becomes half characters, for which ingest refuses the field that has them.
            yield line.decode(errors="surrogateescape")


def _json_object(encoded: str) -> dict[str, Any] | None:
    try:
        value = strict_json.loads(encoded.encode(errors="surrogateescape"))
    except ValueError:
        return None
    return value if type(value) is dict else None
