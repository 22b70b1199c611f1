"""`src`, the relation that questions read, made of events as plain dicts."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import duckdb

from nimbus_server.analyses.property import Property

# Numbers below it are told apart to the unit by a double.
EXACT = 2**53

_COLUMNS = {
    "seq": "BIGINT",
    "t": "BIGINT",
    "name": "VARCHAR",
    "uid": "BIGINT",
    "person": "VARCHAR",
    "user_id": "VARCHAR",
    "anonymous_id": "VARCHAR",
    "props": "VARCHAR",
    "context": "VARCHAR",
}
_KINDS = {"s": "VARCHAR", "n": "DOUBLE", "b": "BOOLEAN", "j": "VARCHAR"}


def make_src(
    connection: duckdb.DuckDBPyConnection, events: Sequence[Mapping[str, Any]], properties: Iterable[Property] = ()
) -> None:
    """Create the table `src` of events {seq, t, name, user_id, anonymous_id, props, context}; what is missing is NULL.

    `properties` get columns, as `needs.properties` of a question do. JSON numbers are int, float or Decimal.
    """
    wanted = sorted({prop for prop in properties if prop.keys})
    columns = dict(_COLUMNS)
    columns |= {f"{prop.path}:{kind}": sql for prop in wanted for kind, sql in _KINDS.items()}
    declared = ", ".join('"' + name.replace('"', '""') + f'" {sql}' for name, sql in columns.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE src ({declared})")
    rows = [[*_own(event), *(value for prop in wanted for value in _kinds(_value(event, prop)))] for event in events]
    if rows:
        connection.executemany(f"INSERT INTO src VALUES ({', '.join('?' * len(columns))})", rows)


def uid_of(person: str | None) -> int | None:
    """The number that stands for a person."""
    if person is None:
        return None
    return int.from_bytes(hashlib.md5(person.encode(), usedforsecurity=False).digest()[8:], "little") >> 1


def json_text(value: Any) -> str:
    """The value as PostgreSQL writes a jsonb."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json_text(key)}: {json_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, float | Decimal):
        return format(Decimal(repr(value)) if isinstance(value, float) else value, "f")
    return json.dumps(value, ensure_ascii=False)


def value_text(value: Any) -> str:
    """The value of a property as JSON: without blanks, numbers with a point or an exponent as those of a double."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{value_text(key)}:{value_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(value_text, value)) + "]"
    if isinstance(value, float | Decimal) and "." in json_text(value):
        return _double_text(float(value))
    return json_text(value)


def _double_text(number: float) -> str:
    """As JavaScript writes it, but whole numbers with a point."""
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    assert isinstance(exponent, int)
    size = len(digits) + exponent
    if -6 < size <= 21:
        plain = format(Decimal(repr(number)).normalize(), "f")
        return plain if "." in plain else plain + ".0"
    first, *rest = map(str, digits)
    return f"{'-' if sign else ''}{first}{'.' if rest else ''}{''.join(rest)}e{size - 1}"


def _own(event: Mapping[str, Any]) -> Iterator[Any]:
    user_id, anonymous_id = event.get("user_id"), event.get("anonymous_id")
    person = user_id if user_id is not None else anonymous_id
    yield from (event["seq"], event["t"], event["name"], uid_of(person), person, user_id, anonymous_id)
    yield from (json_text(event.get(document) or {}) for document in ("props", "context"))


def _value(event: Mapping[str, Any], prop: Property) -> Any:
    value = event.get(prop.root)
    for key in prop.keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _kinds(value: Any) -> tuple[str | None, float | None, bool | None, str | None]:
    if isinstance(value, str):
        return value, None, None, None
    if isinstance(value, bool):
        return None, None, value, None
    if isinstance(value, int | float | Decimal) and abs(value) < EXACT:
        return None, float(value), None, None
    return None, None, None, None if value is None else value_text(value)
