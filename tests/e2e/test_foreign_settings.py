"""What is stored and shown does not depend on the settings of a role, a database, the environment or a pooler."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import requests
import server_sent_events
import sockets
from conftest import ENVIRONMENT, STOPS_AT_ONCE, Account, Stack, new_account
from credentials import machine
from importing import run as run_import
from pooler import pooler
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from surface import RPCS
from tailing import run as run_tail
from transports import over_rest, send

INGEST, LIST, METRICS = (
    RPCS["EventService.IngestEvents"],
    RPCS["EventService.ListEvents"],
    RPCS["MetricsService.QueryMetrics"],
)
OF_DATABASE = {
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Kolkata",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "array_nulls": "off",
    "synchronous_commit": "off",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "1h",
}
OF_ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGTZ": "Asia/Kolkata",
    "PGDATESTYLE": "German",
    "PGOPTIONS": "-c search_path=nowhere -c synchronous_commit=off",
}
TEXT = "café 日本 🎉"
EVENT = {"name": TEXT, "ts": "2026-01-02T00:00:00.5Z", "user_id": TEXT, "props": {TEXT: TEXT, "n": 1.5}}


def create(admin: str, encoding: str = "UTF8") -> str:
    name = f"foreign_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} ENCODING {} LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0").format(
                sql.Identifier(name), encoding
            )
        )
        for setting, value in OF_DATABASE.items():
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(sql.Identifier(name), sql.Identifier(setting), value)
            )
    return name


@pytest.fixture(scope="module")
def foreign(dsn_of: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose database, environment and connection string all have settings of their own, behind a pooler."""
    options = quote("-c timezone=America/New_York -c statement_timeout=2h", safe="")
    straight = dsn_of(create(dsn_of("postgres")))
    folder = tmp_path_factory.mktemp("foreign")
    with pooler(folder, Path(str(conninfo_to_dict(straight)["host"])) / ".s.PGSQL.5432", "options", "client_encoding"):
        dsn = f"postgresql:///{conninfo_to_dict(straight)['dbname']}?host={folder}&user=nimbus"
        dsn += f"&client_encoding=LATIN9&options={options}"
        environment = {**STOPS_AT_ONCE, **OF_ENVIRONMENT, "NIMBUS_DATABASE_URL": dsn, "NIMBUS_WORKERS": "1"}
        running = Stack(folder / "data", environment).start()
        yield running
        running.stop()


@pytest.fixture(scope="module")
def someone(foreign: Stack) -> Account:
    return new_account(foreign)


@pytest.fixture(scope="module")
def sent(foreign: Stack, someone: Account) -> Account:
    """Someone who has sent EVENT."""
    body = {"project_id": someone.project_id, "events": [EVENT]}
    assert over_rest(foreign, INGEST, body, machine(someone)).response.accepted == 1
    return someone


def test_text_is_stored_as_it_was_sent_and_found(foreign: Stack, sent: Account) -> None:
    props = json.dumps({TEXT: TEXT})
    for query in ({}, {"name": TEXT}, {"user_id": TEXT}, {"props": props}):
        items = over_rest(foreign, LIST, {"project_id": sent.project_id, **query}, machine(sent)).response.items
        assert [(item.name, item.user_id, item.props[TEXT]) for item in items] == [(TEXT, TEXT, TEXT)], query
    with psycopg.connect(foreign.environment["NIMBUS_DATABASE_URL"]) as connection:
        connection.execute("SET client_encoding TO 'UTF8'")
        query = "SELECT name, props->>%s FROM events WHERE project_id = %s"
        assert connection.execute(query, (TEXT, sent.project_id)).fetchall() == [(TEXT, TEXT)]


async def test_times_are_utc_wherever_they_are_shown(foreign: Stack, sent: Account) -> None:
    listed = send(foreign, "GET", f"/v1/events?project_id={sent.project_id}", None, sent.bearer).json["items"]
    with server_sent_events.opened(foreign, sent, machine(sent), start="earliest") as source:
        streamed = await asyncio.to_thread(source.events, 1)
    async with sockets.opened(foreign, sent, start="earliest") as socket:
        shown = await sockets.events(socket, 1)
    assert listed[0]["ts"] == streamed[0]["ts"] == shown[0]["ts"] == "2026-01-02T00:00:00.500Z"
    assert listed[0]["received_at"] == streamed[0]["received_at"] == shown[0]["received_at"]
    assert streamed[0]["name"] == shown[0]["name"] == TEXT


def test_metrics_count_in_utc(foreign: Stack, sent: Account) -> None:
    query = {"project_id": sent.project_id, "bucket": "1d", "name": TEXT}
    (point,) = over_rest(foreign, METRICS, query, machine(sent)).response.series
    assert (point.ts.ToJsonString(), point.value) == ("2026-01-02T00:00:00Z", 1)


def test_projects_are_made_and_listed(foreign: Stack, sent: Account) -> None:
    created = requests.post(f"{foreign.url}/v1/projects", json={"name": TEXT}, headers=sent.bearer, timeout=30).json()[
        "project"
    ]
    listed = requests.get(f"{foreign.url}/v1/projects", headers=sent.bearer, timeout=30).json()["items"]
    assert created in listed
    assert created["name"] == TEXT


def test_an_import_stores_the_same(foreign: Stack, tmp_path: Path) -> None:
    account = new_account(foreign)
    file = tmp_path / "history.jsonl"
    file.write_text(json.dumps(EVENT))
    status, said = run_import(foreign, file, "--project", account.project_id, **foreign.environment)
    assert status == 0, said
    (item,) = over_rest(foreign, LIST, {"project_id": account.project_id}, machine(account)).response.items
    assert (item.name, item.user_id, item.props[TEXT]) == (TEXT, TEXT, TEXT)
    assert item.ts.ToJsonString() == EVENT["ts"].replace(".5Z", ".500Z")


def test_tail_shows_the_same(foreign: Stack, sent: Account) -> None:
    arguments = ("--data-dir", foreign.data_dir, "--earliest", "--limit", 1, "--json", "--name", TEXT)
    status, shown, said = run_tail(sent, *arguments, **foreign.environment)
    assert status == 0, said
    event = json.loads(shown)
    assert (event["name"], event["user_id"], event["props"]) == (TEXT, TEXT, EVENT["props"])


def nimbus(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
    secrets = {"NIMBUS_JWT_SECRET": "x" * 32, "NIMBUS_SECRET_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}
    return subprocess.run(
        [sys.executable, "-m", "nimbus_server", *arguments],
        env={**clean, **ENVIRONMENT, **secrets, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_is_refused_in_one_sentence(
    dsn_of: Callable[[str], str], scratch: Path, encoding: str
) -> None:
    dsn = dsn_of(create(dsn_of("postgres"), encoding))
    file = scratch / "a.jsonl"
    file.write_text("{}")
    for command in (
        ("serve", "--socket", str(scratch / "worker.sock")),
        ("up", "--data-dir", str(scratch / "data"), "--http-port", "0", "--grpc-port", "0"),
        ("migrate",),
        ("migrate", "--status"),
        ("import", str(file), "--project", str(uuid.uuid4())),
    ):
        ran = nimbus(*command, NIMBUS_DATABASE_URL=dsn)
        assert ran.returncode == 1, (command, ran)
        assert f"has the encoding {encoding}" in ran.stderr + ran.stdout, (command, ran)
        assert "ENCODING 'UTF8'" in ran.stderr + ran.stdout
        assert "Traceback" not in ran.stderr + ran.stdout
