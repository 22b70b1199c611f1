"""Whatever JSON an event has, a segment gives each of its values as what it is, in a column of its own or not."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_checks import WITH_ONE_DATABASE
from segment_files import Event, exporter_of, file_rows, log_rows, put
from storage import new_project, opened, settings_for

from nimbus_server.clock import now
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.segments import columns
from nimbus_server.segments.manifest import Segment
from nimbus_server.segments.store import SegmentStore

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
# Few, so that one key has values of many kinds.
KEYS = st.sampled_from(["a", "b", "a.b", 'q"uote', "back\\slash", "", "é", "0", "line\n", "*", "$", "a/b~", "'"]) | TEXT
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) - 2, 2**53 + 2)
    | st.sampled_from([2**53, 1 - 2**53, -(2**53), 2**63, 10**30, 0, 0.1, 1.5e-7, 1e300, -2.0])
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(["null", "true", "5", "", '"', "\\", "[1]", "{"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
PEOPLE = st.none() | st.sampled_from(["u", "v'w", "ü\t\\N"]) | TEXT


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        await Partitions(pool).ensure_ahead(now() - timedelta(days=40))
        yield pool


@given(st.lists(st.tuples(OBJECTS, OBJECTS, PEOPLE, PEOPLE, TEXT.filter(bool)), min_size=1, max_size=15))
@settings(WITH_ONE_DATABASE, max_examples=10)
async def test_every_event_and_every_value_of_it_is_as_in_the_log(
    dsn: str, database: Database, tmp_path: Path, events: list[tuple[Any, ...]]
) -> None:
    project = await new_project(database)
    await put(
        database,
        project,
        [
            Event(json.dumps(props, ensure_ascii=False), json.dumps(context, ensure_ascii=False), name, user, anonymous)
            for props, context, user, anonymous, name in events
        ],
    )
    await exporter_of(dsn, database, tmp_path).export(project)
    (segment,) = (await SegmentStore(database).snapshot(project)).segments
    rows = await log_rows(database, project)
    assert file_rows(tmp_path, project, [segment]) == rows

    logged = [{"props": json.loads(row[8]), "context": json.loads(row[9])} for row in rows]
    paths = sorted({path for event in logged for path in paths_in(event)} | {("props", "missing")})
    assert set(segment.columns) <= {columns.path_of(root, keys) for root, *keys in paths}
    expected = {path: [kinds_of(value_at(event, path)) for event in logged] for path in paths}
    assert taken_out(tmp_path, project, segment, paths) == expected
    promoted = [path for path in paths if columns.path_of(path[0], path[1:]) in segment.columns]
    assert in_columns(tmp_path, project, segment, promoted) == {path: expected[path] for path in promoted}


Keys = tuple[str, ...]
Values = dict[Keys, list[tuple[Any, ...]]]


def taken_out(folder: Path, project: UUID, segment: Segment, paths: list[Keys]) -> Values:
    """For each path, the values of all events by position, taken out of the JSON text."""
    texts = [f"{columns.extract_sql(path[0], path[1:])} AS x{n}" for n, path in enumerate(paths)]
    fields = [field for n in range(len(paths)) for field in columns.kinds_sql(f"x{n}").values()]
    return values(paths, file_rows(folder, project, [segment], ", ".join(fields), texts))


def in_columns(folder: Path, project: UUID, segment: Segment, paths: list[Keys]) -> Values:
    """For each path, the values of all events by position, as they are in its columns."""
    fields = [field for path in paths for field in own_columns(path, segment)]
    return values(paths, file_rows(folder, project, [segment], ", ".join(fields))) if paths else {}


def values(paths: list[Keys], rows: list[tuple[Any, ...]]) -> Values:
    """Four fields of each row for each path, the last of them read as JSON."""
    return {
        path: [
            (*row[4 * n : 4 * n + 3], None if row[4 * n + 3] is None else json.loads(row[4 * n + 3])) for row in rows
        ]
        for n, path in enumerate(paths)
    }


def own_columns(path: Keys, segment: Segment) -> list[str]:
    name = columns.path_of(path[0], path[1:])
    kinds = segment.columns[name]
    return ['"' + f"{name}:{kind}".replace('"', '""') + '"' if kind in kinds else "NULL" for kind in "snbj"]


def paths_in(value: dict[str, Any], above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The paths of all values, those of objects included."""
    found = set()
    for key, below in value.items():
        if above:
            found.add((*above, key))
        if isinstance(below, dict):
            found |= paths_in(below, (*above, key))
    return found


def value_at(event: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(event, dict) or key not in event:
            return None
        event = event[key]
    return event


def kinds_of(value: Any) -> tuple[Any, ...]:
    """What the columns of kinds s, n, b and j hold for a value."""
    if isinstance(value, str):
        return (value, None, None, None)
    if isinstance(value, bool):
        return (None, None, value, None)
    if isinstance(value, int | float) and abs(value) < 2**53:
        return (None, float(value), None, None)
    return (None, None, None, value)
