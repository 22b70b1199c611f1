"""CSV (RFC 4180) with a header: a row an event, a column a field or a property."""

from collections.abc import Iterator
from typing import Any

from nimbus_server import strict_json
from nimbus_server.errors import Reason
from nimbus_server.importer.csv_reader import HeaderError, Rows
from nimbus_server.importer.lines import Lines
from nimbus_server.importer.record import Record, new_record, unparsable
from nimbus_server.ingest.event import EventRefusedError

FIELDS = {"name", "ts", "user_id", "idempotency_key", "id"}
PROPS_COLUMNS = {"props", "properties"}
REQUIRED = ("name", "ts")


def read_csv(lines: Lines) -> Iterator[Record]:
    """Each row that is not blank, after the header, which is read at once. Raises HeaderError."""
    rows = Rows(lines)
    header = rows.header()
    if header is None:
        return iter(())
    columns = _Columns([name.strip() for name in header])
    return (new_record((line, raw, columns.event(cells))) for line, raw, cells in rows)


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


def _json_object(encoded: str) -> dict[str, Any] | None:
    try:
        value = strict_json.loads(encoded.encode(errors="surrogateescape"))
    except ValueError:
        return None
    return value if type(value) is dict else None
