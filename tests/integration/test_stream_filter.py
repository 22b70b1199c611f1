"""Which events a stream carries is the same for live ones as for stored ones, that is as PostgreSQL has it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from log_checks import WITH_ONE_DATABASE

from nimbus_server.stream.event import StreamedEvent
from nimbus_server.stream.filter import EventFilter, SeenEvent

AT = datetime(2025, 11, 1, tzinfo=UTC)
# Close to one another, so that few differ by much; as text, since they are stored as they are written.
NUMBERS = st.sampled_from(
    ["0", "-0", "-0.0", "1", "1.0", "1e0", "10e-1", "0.1", "0.10", "1e308", "5e-324", "1e-400", "0.30000000000000004"]
    + [f"{2**53 + n}" for n in range(3)]
    + [f"{2**64 + n}" for n in (-2, -1, 0, 1)]
    + [f"{2**64}.0", "18446744073709552000", "0.1000000000000000055", "100000000000000000000.5"]
)
SCALARS = NUMBERS | st.sampled_from(["true", "false", "null", '""', '"1"', '"true"', '"1234567890123456"', '"\\u00e9"'])
KEYS = st.sampled_from(["a", "b", ""])


def a_list(of: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(of, max_size=3).map(lambda items: f"[{','.join(items)}]")


def an_object(of: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    fields = st.dictionaries(KEYS, of, max_size=3)
    return fields.map(lambda found: "{" + ",".join(f'"{key}":{value}' for key, value in found.items()) + "}")


VALUES = st.recursive(SCALARS, lambda inner: a_list(inner) | an_object(inner), max_leaves=6)
PROPS = an_object(VALUES)


@st.composite
def part_of(draw: st.DrawFn, value: Any) -> Any:
    """Something like what the value contains, and often just that."""
    if isinstance(value, dict):
        kept = [key for key in value if draw(st.booleans())]
        return {key: draw(part_of(value[key])) for key in kept}
    if isinstance(value, list):
        return [draw(part_of(item)) for item in value for _ in range(draw(st.integers(0, 2)))]
    return draw(st.sampled_from([value, value, value, True, 1, [], {}]))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, bytes]:
    """Props as they were sent, and a filter as a stream has it: what orjson makes of what was asked for."""
    stored = draw(PROPS)
    wanted = draw(part_of(orjson.loads(stored)) if draw(st.booleans()) else PROPS.map(orjson.loads))
    return stored, orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS) if wanted else b""


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as opened:
        yield opened


@given(pairs())
@example(('{"n":18446744073709551617}', b'{"n":1.8446744073709552e19}'))
@example(('{"n":0.1000000000000000055}', b'{"n":0.1}'))
@example(('{"n":[[1,2],[3]]}', b'{"n":[[1]]}'))
@example(('{"n":true}', b'{"n":1}'))
@settings(WITH_ONE_DATABASE, max_examples=400)
async def test_props_and_context_contain_what_postgresql_finds_in_them(
    connection: psycopg.AsyncConnection, pair: tuple[str, bytes]
) -> None:
    stored, wanted = pair
    row = await (
        await connection.execute(
            "SELECT props::text, props @> %s::jsonb FROM (SELECT %s::jsonb AS props)",
            (wanted.decode() or "{}", stored),
        )
    ).fetchone()
    assert row
    event = StreamedEvent(UUID(int=1), 1, AT, AT, "n", None, None, row[0], None, "{}")
    assert EventFilter(props_json=wanted).matches(SeenEvent(event)) is row[1]
    event = event._replace(props_json="{}", context_json=row[0])
    assert EventFilter(context_json=wanted).matches(SeenEvent(event)) is row[1]
