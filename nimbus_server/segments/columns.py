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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from nimbus_server.analyses.literal import identifier, literal

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
# Bit 0 for the first of KINDS, and so on: null has none.
_OBJECT_BIT = 16
_KIND_BIT = f"""CASE WHEN {{0}} IS NOT NULL THEN CASE ascii({{0}}) WHEN 34 THEN 1 WHEN 116 THEN 4 WHEN 102 THEN 4
    WHEN 110 THEN 0 WHEN 91 THEN 8 WHEN 123 THEN {_OBJECT_BIT}
    ELSE CASE WHEN abs(TRY_CAST({{0}} AS DOUBLE)) < {EXACT_MAX} THEN 2 ELSE 8 END END END"""


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
        found = f"json_extract({found}, {literal(path)})"
    last = literal(json.dumps(keys[-1], ensure_ascii=False) + ":")
    return f"CASE WHEN contains({column}, {last}) THEN nullif(CAST({found} AS VARCHAR), 'null') END"


def select_kinds(source: str, paths: Sequence[str]) -> str:
    """SQL of one row: a set of bits for each path, for `kinds_found`."""
    kinds = ", ".join(f"bit_or({_KIND_BIT.format(value)})" for value in _values(paths).values())
    return f"SELECT {kinds} FROM ({_with_values(source, paths)})"  # noqa: S608 - paths are quoted


def kinds_found(paths: Sequence[str], bits: Sequence[int | None]) -> dict[str, str]:
    """The paths to promote, with the kinds of their values. What is an object anywhere is not promoted."""
    return {
        path: "".join(kind for place, kind in enumerate(KINDS) if found & 1 << place)
        for path, found in zip(paths, bits, strict=True)
        if found and not found & _OBJECT_BIT
    }


def select(source: str, base: str, promoted: Mapping[str, str]) -> str:
    """SQL of a segment's rows: the base columns, and those of the promoted paths."""
    values = _values([*promoted])
    own = [
        f"{kinds_sql(values[path])[kind]} AS {identifier(f'{path}:{kind}')}"
        for path, kinds in promoted.items()
        for kind in kinds
    ]
    return f"SELECT {', '.join((base, *own))} FROM ({_with_values(source, [*promoted])})"  # noqa: S608 - quoted


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
    # DuckDB takes columns whose names differ in the case of letters alone for one: the first of them gets it.
    chosen: dict[str, str] = {}
    for _, name in sorted(frequent):
        chosen.setdefault(name.lower(), name)
    return list(chosen.values())[:PROMOTED_MAX]


def _values(paths: Sequence[str]) -> dict[str, str]:
    """SQL of the JSON text of each path's value, in `_with_values`."""
    places = dict.fromkeys(ROOTS, 0)
    values = {}
    for path in paths:
        root = keys_of(path)[0]
        places[root] += 1
        values[path] = f"{root}_values[{places[root]}]"
    return values


def _with_values(source: str, paths: Sequence[str]) -> str:
    """SQL: all columns, and lists of the paths' values, for which each text is parsed once."""
    lists = []
    for root in ROOTS:
        keys = [keys_of(path)[1] for path in paths if keys_of(path)[0] == root]
        json_paths = ", ".join(literal("$" + "".join(map(_step, of_one))) for of_one in keys)
        if keys:
            lists.append(f"CAST(json_extract({root}, [{json_paths}]) AS VARCHAR[]) AS {root}_values")
    return f"SELECT {', '.join(('*', *lists))} FROM {source}"  # noqa: S608 - quoted


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
