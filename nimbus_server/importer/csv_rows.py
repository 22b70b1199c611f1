"""CSV (RFC 4180) with a header: a row an event, a column a field, a property or a key of the context."""

from collections.abc import Iterator, Mapping
from typing import Any

from nimbus_server import strict_json
from nimbus_server.errors import Reason
from nimbus_server.importer.csv_reader import HeaderError, Rows
from nimbus_server.importer.lines import Lines
from nimbus_server.importer.record import Record, new_record, unparsable
from nimbus_server.ingest.event import EventRefusedError

FIELDS = {"name", "ts", "user_id", "anonymous_id", "idempotency_key", "id"}
PROPS_COLUMNS = {"props", "properties"}
CONTEXT_COLUMNS = {"context"}
CONTEXT_PREFIX = "context."
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
        of_context = {
            n: tuple(n.removeprefix(CONTEXT_PREFIX).split(".")) for n in names if n.startswith(CONTEXT_PREFIX)
        }
        of_props = {n: (n,) for n in names if n not in FIELDS | PROPS_COLUMNS | CONTEXT_COLUMNS | of_context.keys()}
        _check_paths(of_context)
        self._props = _Object("props", names, PROPS_COLUMNS, of_props)
        self._context = _Object("context", names, CONTEXT_COLUMNS, of_context)

    def event(self, cells: list[str] | EventRefusedError) -> dict[str, Any] | EventRefusedError:
        """The event in a row, or why there is none; an empty cell says nothing."""
        if isinstance(cells, EventRefusedError):
            return cells
        if len(cells) != self._count:
            return unparsable(f"The row has {len(cells)} cells, the header {self._count}.")
        event: dict[str, Any] = {name: cell for name, at in self._fields if (cell := cells[at])}
        try:
            event["props"] = self._props.of(cells)
            if self._context.has_columns:
                event["context"] = self._context.of(cells)
        except EventRefusedError as error:
            return error
        return event


class _Object:
    """The columns of props, or of context: one with a JSON object, and those with a text for a place in it each."""

    def __init__(self, field: str, names: list[str], whole: set[str], paths: Mapping[str, tuple[str, ...]]) -> None:
        self._field = field
        self._whole = next((names.index(name) for name in names if name in whole), None)
        self._places = [(path[:-1], path[-1], names.index(name)) for name, path in paths.items()]
        self.has_columns = self._whole is not None or bool(self._places)

    def of(self, cells: list[str]) -> dict[str, Any]:
        """What a row says of it. Raises EventRefusedError."""
        found: dict[str, Any] = {}
        for outer, key, at in self._places:
            if cell := cells[at]:
                place = found
                for step in outer:
                    place = place.setdefault(step, {})
                place[key] = cell
        if self._whole is None or not (encoded := cells[self._whole]):
            return found
        given = _json_object(encoded)
        if given is None:
            raise EventRefusedError(
                self._field, Reason.FIELD_INVALID, f"{self._field} must be a JSON object without a key twice."
            )
        both = given.keys() & found.keys()
        if both:
            raise EventRefusedError(self._field, Reason.FIELD_INVALID, f"{self._field} has {min(both)}, a column too.")
        return given | found


def _check_paths(paths: Mapping[str, tuple[str, ...]]) -> None:
    """Raise HeaderError where a column names no place, or one within that of another."""
    columns = {path: name for name, path in paths.items()}
    for name, path in paths.items():
        if "" in path:
            raise HeaderError(f"the column {name} has an empty key")
        for length in range(1, len(path)):
            if path[:length] in columns:
                raise HeaderError(f"the column {name} lies within the column {columns[path[:length]]}")


def _json_object(encoded: str) -> dict[str, Any] | None:
    try:
        value = strict_json.loads(encoded.encode(errors="surrogateescape"))
    except ValueError:
        return None
    return value if type(value) is dict else None
