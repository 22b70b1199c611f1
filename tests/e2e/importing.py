"""`nimbus import` as an operator runs it."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import requests
from conftest import ENVIRONMENT, Account, Stack
from typer.testing import CliRunner

from nimbus_server.cli import app

START = datetime(2021, 1, 31, tzinfo=UTC)
SECONDS_MAX = 100


def words(stack: Stack, *arguments: object) -> list[str]:
    """The words of the command."""
    return [sys.executable, "-m", "nimbus_server", "import", "--data-dir", str(stack.data_dir), *map(str, arguments)]


def environment_with(**environment: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
    return {**clean, **ENVIRONMENT, **environment}


def command(stack: Stack, *arguments: object, stdin: Any = None, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words(stack, *arguments),
        env=environment_with(**environment),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(stack: Stack, *arguments: object, stdin: Any = None, **environment: str) -> tuple[int, str]:
    """Exit status and what it said."""
    return outcome(command(stack, *arguments, stdin=stdin, **environment))


def outcome(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and what it said, once it has ended."""
    said, errors = running.communicate(timeout=SECONDS_MAX)
    assert "Traceback" not in said + errors, errors
    return running.returncode, said + errors


def at_once(stack: Stack, *arguments: object, **environment: str) -> tuple[int, str]:
    """As `run` of what fails before it begins, without a process."""
    clean = dict.fromkeys(name for name in os.environ if name.startswith("NIMBUS_"))
    ran = CliRunner().invoke(
        app,
        ["import", "--data-dir", str(stack.data_dir), *map(str, arguments)],
        env={**clean, **ENVIRONMENT, **environment},
    )
    assert isinstance(ran.exception, SystemExit), ran.exception
    return ran.exit_code, ran.output


def write(path: Path, count: int) -> Path:
    """As many events over three months, not in the order of their times."""
    events = (
        {
            "name": "ab"[n % 2],
            "ts": START + timedelta(minutes=n * 7919 % 100_000),
            "user_id": f"u{n % 10}",
            "props": {"n": n},
        }
        for n in range(count)
    )
    path.write_bytes(b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in events))
    return path


def stored(stack: Stack, project_id: str) -> list[tuple[int, Any]]:
    """Position and `n` of every event, in the order of positions."""
    with psycopg.connect(stack.dsn()) as connection:
        query = "SELECT seq, props->'n' FROM events WHERE project_id = %s ORDER BY seq"
        return connection.execute(query, (project_id,)).fetchall()


def holds_once(stack: Stack, project_id: str, count: int) -> None:
    """The first `count` events once each, in order, counted."""
    assert stored(stack, project_id) == [(n + 1, n) for n in range(count)]
    with psycopg.connect(stack.dsn()) as connection:
        different = connection.execute(
            "SELECT * FROM (SELECT date_trunc('minute', ts) AS minute, name, count(*) FROM events "
            "WHERE project_id = %(p)s GROUP BY 1, 2) AS recount "
            "FULL JOIN (SELECT minute, name, count FROM event_counts WHERE project_id = %(p)s) AS counted "
            "USING (minute, name, count) WHERE recount IS NULL OR counted IS NULL",
            {"p": project_id},
        ).fetchall()
    assert different == []


def wait_until_stored(stack: Stack, project_id: str, count: int, running: subprocess.Popen[str]) -> None:
    with psycopg.connect(stack.dsn(), autocommit=True) as connection:
        query = "SELECT last_seq FROM streams WHERE project_id = %s"
        while running.poll() is None:
            row = connection.execute(query, (project_id,)).fetchone()
            assert row is not None
            if row[0] >= count:
                return


def listed(account: Account, **query: str) -> list[dict[str, Any]]:
    found = requests.get(
        f"{account.url}/v1/events", params={"project_id": account.project_id, **query}, headers=account.bearer
    )
    assert found.status_code == 200, found.text
    events: list[dict[str, Any]] = found.json()["items"]
    return events
