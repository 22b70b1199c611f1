"""The one place where a worker is wired together: start, serve, drain, stop."""

import asyncio
import gc
import signal
from pathlib import Path

import structlog

from nimbus_server.accounts.api_keys import SecretBox
from nimbus_server.accounts.authenticator import Authenticator
from nimbus_server.accounts.passwords import Passwords
from nimbus_server.accounts.service import AuthService
from nimbus_server.accounts.store import AccountStore
from nimbus_server.accounts.tokens import Tokens
from nimbus_server.clock import now
from nimbus_server.errors import NimbusError
from nimbus_server.events.service import EventService
from nimbus_server.events.store import EventReader
from nimbus_server.health.service import HealthService
from nimbus_server.health.store import HealthStore
from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.ingest.service import IngestService
from nimbus_server.ingest.store import EventLog
from nimbus_server.metrics.service import MetricsService
from nimbus_server.metrics.store import MetricsStore
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.postgres.retention import Retention
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.projects.service import ProjectService
from nimbus_server.projects.store import ProjectStore
from nimbus_server.rpc.server import Server
from nimbus_server.settings import Settings

log = structlog.get_logger(__name__)

MAINTENANCE_SECONDS = 60.0


class Worker:
    """One server process.

    It listens on `socket` (the edge's way in, private to this user) and, where `grpc_port` is given, on that port of
    `settings.bind_address`, which it shares with the other workers. Making one raises StartupError where an address
    is taken.
    """

    def __init__(self, settings: Settings, socket: Path | None, grpc_port: int | None) -> None:
        secrets, tokens = SecretBox(settings), Tokens(settings)
        self._database = Database(settings)
        self._partitions = Partitions(self._database)
        self._retention = (
            Retention(self._database, self._partitions, settings.retention_days) if settings.retention_days else None
        )
        self._projects = ProjectStore(self._database)
        self._passwords = Passwords(settings.bcrypt_cost)
        self._drain_seconds = settings.drain_seconds
        accounts, access = AccountStore(self._database), ProjectAccess(self._projects)
        self._ingest = Ingest(EventLog(self._database, self._partitions))
        self._ingest_service = IngestService(access, self._ingest, now, settings.retention_days)
        self._server = Server(
            {
                "AuthService": AuthService(accounts, tokens, self._passwords),
                "ProjectService": ProjectService(self._projects, secrets),
                "EventService": EventService(access, self._ingest_service, EventReader(self._database)),
                "MetricsService": MetricsService(access, MetricsStore(self._database)),
                "HealthService": HealthService(HealthStore(self._database), settings.app_name),
            },
            Authenticator(accounts, tokens, secrets),
            now,
        )
        if socket:
            self._server.listen_on_socket(socket)
        if grpc_port is not None:
            self._server.listen_on_port(settings.bind_address, grpc_port)

    async def start(self) -> None:
        """Begin to serve."""
        await self._database.open()
        await self._server.start()
        # What is here by now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()

    async def write(self) -> None:
        """Commit what is ingested, for as long as it runs."""
        await self._ingest.run()

    async def maintain(self) -> None:
        """Make partitions ahead, drop old ones and purge what deleted projects left, for as long as it runs."""
        while True:
            try:
                await self._partitions.ensure_ahead(now())
                if self._retention:
                    await self._retention.enforce(now())
                while await self._projects.purge_step():
                    pass
            except NimbusError:
                pass  # the database is away; its own log line says so
            except Exception:
                # A schema that lacks a migration, say: calls are answered all the same, and it may come yet.
                log.exception("maintenance failed", again_in_seconds=MAINTENANCE_SECONDS)
            await asyncio.sleep(MAINTENANCE_SECONDS)

    async def stop(self) -> None:
        """Go unready, finish what is in flight within settings.drain_seconds, and close everything."""
        await self._server.go_unready(self._drain_seconds)
        self._ingest_service.end_streams()
        await self._server.stop(self._drain_seconds)
        self._passwords.close()
        await self._database.close()


async def serve(settings: Settings, socket: Path | None, grpc_port: int | None) -> None:
    """Run a worker until SIGTERM or SIGINT, then drain it."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    worker = Worker(settings, socket, grpc_port)
    await worker.start()
    log.info("serving", socket=str(socket) if socket else None, grpc_port=grpc_port)
    stopping = asyncio.create_task(stopped.wait())
    writing, maintenance = asyncio.create_task(worker.write()), asyncio.create_task(worker.maintain())
    # A worker that can't write is of no use: it ends, and who started it starts another.
    await asyncio.wait((stopping, writing), return_when=asyncio.FIRST_COMPLETED)
    maintenance.cancel()
    await worker.stop()
    if writing.done():
        writing.result()
    writing.cancel()
    log.info("stopped")
