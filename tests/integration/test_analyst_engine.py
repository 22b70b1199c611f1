"""The engine of the analyst: what it holds on to, how it stops, and what it says of files that are gone."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import duckdb
import psycopg
import pytest
from google.protobuf.message import Message
from psycopg.conninfo import make_conninfo

from nimbus.v1.catalog_pb2 import ListEventNamesResponse
from nimbus_server.analyses.question import Ask, AsOf, Needs
from nimbus_server.analyst.engine import Engine
from nimbus_server.analyst.memory import Budget
from nimbus_server.analyst.scan import Scan
from nimbus_server.analyst.spill import Spill
from nimbus_server.analyst.tail import IDLE_MAX, Tail
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.postgres.session import plain_conninfo
from nimbus_server.segments.manifest import Segment, Snapshot

AT = datetime(2025, 6, 1, tzinfo=UTC)
AS_OF = AsOf(0, AT)
# Takes minutes, and can be interrupted.
LONG = "SELECT sum(hash(range)) FROM range(1000000000000)"


class Asking:
    """A question of one statement, which says when it has ended."""

    needs = Needs(None, None, None, frozenset())

    def __init__(self, sql: str) -> None:
        self.ended = threading.Event()
        self._sql = sql

    def answer(self, ask: Ask, as_of: AsOf) -> Message:
        try:
            ask(self._sql)
        finally:
            self.ended.set()
        return ListEventNamesResponse(as_of_position=as_of.position)


@pytest.fixture
def engine(dsn: str, tmp_path: Path) -> Iterator[Engine]:
    made = Engine(plain_conninfo(dsn, "engine"), tmp_path, tmp_path / "tmp", Budget(1, 10**9, 10**9), 1)
    yield made
    made.close()


def scan(folder: Path, *segments: Segment) -> Scan:
    return Scan(uuid4(), Asking.needs, Snapshot(0, 0, segments, (), AT), folder, None)


async def test_a_question_is_stopped_before_its_caller_goes_on_even_if_that_is_cancelled_twice(
    engine: Engine, tmp_path: Path
) -> None:
    question, begun = Asking(LONG), threading.Event()
    heard = lambda sql: begun.set() if sql == LONG else None  # noqa: E731
    call = asyncio.create_task(engine.answer(question, scan(tmp_path), AS_OF, heard))
    await asyncio.to_thread(begun.wait, 10)
    # As a deadline does, and the client that had the same one.
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert question.ended.is_set()


async def test_a_segment_whose_file_is_gone_is_said_with_what_to_do(engine: Engine, tmp_path: Path) -> None:
    lost = Segment(uuid4(), 1, 2, AT, AT, 2, 100, {})
    with pytest.raises(NimbusError, match="nimbus segments rebuild") as raised:
        await engine.answer(Asking("SELECT count(*) FROM src"), scan(tmp_path, lost), AS_OF)
    assert raised.value.reason == Reason.ANALYST_UNAVAILABLE


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{outside}')",
        "SELECT * FROM '{outside}'",
        "COPY (SELECT 1) TO '{outside}'",
        "ATTACH '{outside}' AS other",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
    ],
)
async def test_no_statement_reaches_a_file_outside_or_a_setting(engine: Engine, tmp_path: Path, sql: str) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}.csv"
    outside.write_text("secret\n")
    with pytest.raises((duckdb.PermissionException, duckdb.InvalidInputException, duckdb.IOException)):
        await engine.answer(Asking(sql.format(outside=outside)), scan(tmp_path), AS_OF)
    assert outside.read_text() == "secret\n"


def test_few_connections_are_kept_however_many_new_ones_were_asked_for(dsn: str) -> None:
    name = f"tail {uuid4()}"
    tail = Tail(plain_conninfo(dsn, name))
    try:
        for _ in range(3 * IDLE_MAX):
            with tail.rows("SELECT 1 AS one", fresh=True) as rows:
                rows.__arrow_c_stream__()
        with psycopg.connect(dsn) as connection:
            ((count,),) = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (name,)
            ).fetchall()
        assert 0 < count <= IDLE_MAX
    finally:
        tail.close()


def test_what_a_role_sets_ends_no_query_for_questions(dsn: str) -> None:
    tail = Tail(make_conninfo(plain_conninfo(dsn, "tail"), options="-c statement_timeout=1000"))
    try:
        with tail.rows("SELECT current_setting('statement_timeout') AS timeout", fresh=False) as rows:
            found = duckdb.connect().register("settings", rows).execute("SELECT timeout FROM settings").fetchall()
    finally:
        tail.close()
    assert found == [("2min",)]


def test_processes_that_share_a_folder_leave_each_others_spilled_data_alone(tmp_path: Path) -> None:
    first = Spill(tmp_path)
    (first.path / "data").write_bytes(b"spilled")
    left = tmp_path / "left by one that was killed"
    left.mkdir()
    second = Spill(tmp_path)
    assert first.path != second.path
    assert (first.path / "data").read_bytes() == b"spilled"
    assert not left.exists()
    first.close()
    assert second.path.exists()
    assert not first.path.exists()
    second.close()
