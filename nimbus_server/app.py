"""The one place where a worker is wired together: start, serve, drain, stop."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from nimbus.v1 import auth_service_pb2, event_service_pb2, health_service_pb2, metrics_service_pb2, project_service_pb2

from nimbus_server.accounts.api_keys import SecretBox
from nimbus_server.accounts.authenticator import Authenticator
from nimbus_server.accounts.passwords import Passwords
from nimbus_server.accounts.service import AuthService
from nimbus_server.accounts.store import AccountStore
from nimbus_server.accounts.tokens import Tokens
from nimbus_server.clock import now
from nimbus_server.errors import NimbusError, StartupError
from nimbus_server.events.service import EventService
from nimbus_server.events.store import EventReader
from nimbus_server.health.service import HealthService
from nimbus_server.health.store import HealthStore
from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.ingest.store import EventLog
from nimbus_server.metrics.service import MetricsService
from nimbus_server.metrics.store import MetricsStore
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.projects.service import ProjectService
from nimbus_server.projects.store import ProjectStore
from nimbus_server.rpc.interceptors import AdmitInterceptor, ObserveInterceptor
from nimbus_server.rpc.registry import handlers_of, rpcs_of
from nimbus_server.settings import Settings

log = structlog.get_logger(__name__)

# A full batch: 1,000 events of 10 KB of props, and what goes with them.
REQUEST_BYTES_MAX = 16 * 1024 * 1024
MAINTENANCE_SECONDS = 60.0

SERVICES = {
    module.DESCRIPTOR.services_by_name[name]: name
    for module, name in (
        (auth_service_pb2, "AuthService"),
        (project_service_pb2, "ProjectService"),
        (event_service_pb2, "EventService"),
        (metrics_service_pb2, "MetricsService"),
        (health_service_pb2, "HealthService"),
    )
}


class Worker:
    """One server process.

    It listens on `socket` (the edge's way in, private to this user) and, where `grpc_port` is given, on that port of
    `settings.bind_address`, which it shares with the other workers.
    """

    def __init__(self, settings: Settings, socket: Path | None, grpc_port: int | None) -> None:
        self._settings = settings
        self._socket = socket
        self._grpc_port = grpc_port
        self._database = Database(settings)
        self._partitions = Partitions(self._database)
        self._projects = ProjectStore(self._database)
        self._passwords = Passwords(settings.bcrypt_cost)
        self._health = health_aio.HealthServicer()
        self._server = self._build()

    async def start(self) -> None:
        """Begin to serve. Raises StartupError where an address is taken."""
        await self._database.open()
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", socket=str(self._socket) if self._socket else None, grpc_port=self._grpc_port)

    async def maintain(self) -> None:
        """Make partitions ahead and purge what deleted projects left, for as long as it runs."""
        while True:
            with suppress(NimbusError):  # the database is away; its own log line says so
                await self._partitions.ensure_ahead(now())
                while await self._projects.purge_step():
                    pass
            await asyncio.sleep(MAINTENANCE_SECONDS)

    async def stop(self) -> None:
        """Go unready, finish what is in flight within settings.drain_seconds, and close everything."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_seconds)
        self._passwords.close()
        await self._database.close()
        log.info("stopped")

    def _build(self) -> grpc.aio.Server:
        secrets, tokens = SecretBox(self._settings), Tokens(self._settings)
        accounts, access = AccountStore(self._database), ProjectAccess(self._projects)
        ingest = Ingest(EventLog(self._database, self._partitions))
        servicers: Mapping[str, object] = {
            "AuthService": AuthService(accounts, tokens, self._passwords),
            "ProjectService": ProjectService(self._projects, secrets),
            "EventService": EventService(access, ingest, EventReader(self._database), now),
            "MetricsService": MetricsService(access, MetricsStore(self._database)),
            "HealthService": HealthService(HealthStore(self._database), self._settings.app_name),
        }
        rpcs = {name: rpc for service in SERVICES for name, rpc in rpcs_of(service).items()}
        server = grpc.aio.server(
            interceptors=[
                ObserveInterceptor(rpcs),
                AdmitInterceptor(rpcs, Authenticator(accounts, tokens, secrets), now),
            ],
            options=[("grpc.max_receive_message_length", REQUEST_BYTES_MAX)],
        )
        server.add_generic_rpc_handlers([handlers_of(s, servicers[name]) for s, name in SERVICES.items()])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.full_name for service in SERVICES]
        reflection.enable_server_reflection(
            [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME], server
        )
        self._listen(server)
        return server

    def _listen(self, server: grpc.aio.Server) -> None:
        addresses = []
        if self._socket:
            self._socket.unlink(missing_ok=True)
            addresses.append(f"unix:{self._socket.absolute()}")
        if self._grpc_port is not None:
            addresses.append(f"{self._settings.bind_address}:{self._grpc_port}")
        for address in addresses:
            try:
                server.add_insecure_port(address)
            except RuntimeError:
                raise StartupError(f"Nimbus can't listen on {address}: it is taken, or not of this machine.") from None


async def serve(settings: Settings, socket: Path | None, grpc_port: int | None) -> None:
    """Run a worker until SIGTERM or SIGINT, then drain it."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    worker = Worker(settings, socket, grpc_port)
    await worker.start()
    maintenance = asyncio.create_task(worker.maintain())
    await asyncio.wait(
        [maintenance, asyncio.create_task(stopped.wait())], return_when=asyncio.FIRST_COMPLETED
    )
    if maintenance.done() and not stopped.is_set():
        maintenance.result()
    maintenance.cancel()
    await worker.stop()
