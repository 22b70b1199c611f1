"""A fresh database for each test that wants one, in a real PostgreSQL without the rest of the stack."""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from signal import Signals

import psycopg
import pytest
from psycopg import sql

from nimbus_server.local.console import Console
from nimbus_server.local.folder import open_folder
from nimbus_server.local.postgres import Postgres
from nimbus_server.local.programs import Probe, spawn
from nimbus_server.postgres.migrate import migrate

CONNECTIONS = 200
START_SECONDS_MAX = 60
# Nobody cuts the power here, and what the databases hold goes with them: that they are durable is proved end to end.
FORGETFUL = ("-c", "fsync=off", "-c", "full_page_writes=off")


@pytest.fixture(scope="session")
async def dsn_of() -> AsyncIterator[Callable[[str], str]]:
    """How to reach a database by its name in a PostgreSQL as the stack has it, started for the tests that share it."""
    path = Path(tempfile.mkdtemp(prefix="nimbus-"))
    path.chmod(0o755)  # noqa: ASYNC240 - nobody else runs yet
    folder = open_folder(path / "data")
    leash = os.open(os.devnull, os.O_RDONLY)
    postgres = Postgres(folder, CONNECTIONS, Console(), leash)
    await postgres.prepare()
    program = postgres.program()
    with program.log.open("wb") as log:
        process = await spawn(
            [*program.command, *FORGETFUL],
            leash=leash,
            orphan_signal=Signals.SIGQUIT,
            environment=program.environment,
            account=program.account,
            output=log.fileno(),
        )
    async with asyncio.timeout(START_SECONDS_MAX):
        while await program.probe() is not Probe.READY:
            assert process.returncode is None, program.log.read_text()
            await asyncio.sleep(0.02)
    yield postgres.dsn
    process.send_signal(Signals.SIGQUIT)
    await process.wait()
    os.close(leash)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
async def template_database(dsn_of: Callable[[str], str]) -> str:
    """A migrated, empty database to copy."""
    name = f"template_{uuid.uuid4().hex[:8]}"
    async with await psycopg.AsyncConnection.connect(dsn_of("postgres"), autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    await migrate(dsn_of(name))
    return name


@pytest.fixture
async def dsn(dsn_of: Callable[[str], str], template_database: str) -> str:
    """A database of the test's own, migrated and empty. It goes with its PostgreSQL."""
    return await new_database(dsn_of, template_database)


async def new_database(dsn_of: Callable[[str], str], template_database: str) -> str:
    """Copy the template, and return how to reach the copy."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    async with await psycopg.AsyncConnection.connect(dsn_of("postgres"), autocommit=True) as connection:
        await connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template_database))
        )
    return dsn_of(name)
