r"""Columns of properties: their names, how values are taken out of JSON text, and which get columns of their own.

A property is named by its path: `props.plan`, `context.page.path`, with `.` and `\` in a key escaped by `\`. A value
has one of four kinds, and a column for each kind is named `<path>:<kind>`:

    s  text        VARCHAR
    n  number      DOUBLE, below 2^53 in absolute value
    b  boolean     BOOLEAN
    j  the rest    VARCHAR: the JSON text of a list, an object, or a larger number

JSON null is as good as missing.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

ROOTS = ("props", "context")
KINDS = "snbj"
# Doubles are exact for whole numbers below it.
EXACT_MAX = 2**53

# A property has columns of its own in a segment where it is in at least one in so many of its events.
PROMOTED_SHARE = 1000
PROMOTED_MAX = 64

_PART = re.compile(r"(?:^|\.)((?:[^.\\]|\\.)*)", re.DOTALL)
# By the first character of a value's JSON text.
_TEXT, _NUMBER, _NESTED = (
    "ascii({0}) = 34",
    "(ascii({0}) BETWEEN 48 AND 57 OR ascii({0}) = 45)",
    "ascii({0}) IN (91, 123)",
)


def path_of(root: str, keys: Iterable[str]) -> str:
    """The canonical path of a property."""
    return ".".join((root, *(key.replace("\\", "\\\\").replace(".", "\\.") for key in keys)))


def keys_of(path: str) -> tuple[str, tuple[str, ...]]:
    """The root and the keys of a canonical path."""
    root, *keys = (re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in _PART.findall(path))
    return root, tuple(keys)


def kinds_sql(json_text: str) -> dict[str, str]:
    """For each kind, SQL of the value where it is of that kind, else NULL.

    `json_text` is SQL of the value's JSON text, NULL where the property is missing; it may be read several times.
    """
    text, number, nested = (form.format(json_text) for form in (_TEXT, _NUMBER, _NESTED))
    double = f"TRY_CAST({json_text} AS DOUBLE)"
    return {
        "s": f"CASE WHEN {text} THEN json_extract_string({json_text}, '$') END",
        "n": f"CASE WHEN {number} AND abs({double}) < {EXACT_MAX} THEN {double} END",
        "b": f"CASE {json_text} WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE END",
        "j": f"CASE WHEN {nested} OR ({number} AND NOT abs({double}) < {EXACT_MAX}) THEN {json_text} END",
    }


def extract_sql(column: str, keys: tuple[str, ...]) -> str:
    """SQL: the JSON text of the value at these keys of a column of JSON text, NULL where it is missing or null.

    Keys are those of objects: "0" is not the first item of a list. Text without the last key in it is not parsed.
    """
    found = column
    for path in _json_paths(keys):
        found = f"json_extract({found}, {_literal(path)})"
    last = _literal(json.dumps(keys[-1], ensure_ascii=False) + ":")
    return f"CASE WHEN contains({column}, {last}) THEN nullif(CAST({found} AS VARCHAR), 'null') END"


def find_paths(texts: Iterable[tuple[str, str]]) -> list[str]:
    """The paths to promote where these props and contexts, as JSON objects, are a sample of the events.

    Most frequent first. Objects are descended into, lists are not.
    """
    found: Counter[tuple[str, ...]] = Counter()
    events = 0
    for event in texts:
        events += 1
        objects: list[tuple[tuple[str, ...], Any]] = [
            ((root,), orjson.loads(text)) for root, text in zip(ROOTS, event, strict=True)
        ]
        for path, item in objects:
            for key, value in item.items():
                if isinstance(value, dict):
                    objects.append(((*path, key), value))
                # DuckDB has no JSON path for an empty key below another one.
                elif value is not None and key and "" not in path:
                    found[(*path, key)] += 1
    frequent = [
        (-count, path_of(keys[0], keys[1:])) for keys, count in found.items() if count * PROMOTED_SHARE >= events
    ]
    return [path for _, path in sorted(frequent)[:PROMOTED_MAX]]


def _json_paths(keys: Sequence[str]) -> list[str]:
    """JSON paths to be followed one after the other: DuckDB has none for an empty key below another one."""
    paths: list[str] = []
    for key in keys:
        if not key:
            paths.append("/")
        elif paths and paths[-1] != "/":
            paths[-1] += _step(key)
        else:
            paths.append("$" + _step(key))
    return paths


def _step(key: str) -> str:
    return '."' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
