"""The one place where a worker is wired together: start, serve, drain, stop."""

import asyncio
import gc
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from nimbus_server.accounts.api_keys import SecretBox
from nimbus_server.accounts.authenticator import Authenticator
from nimbus_server.accounts.passwords import Passwords
from nimbus_server.accounts.service import AuthService
from nimbus_server.accounts.store import AccountStore
from nimbus_server.accounts.tokens import Tokens
from nimbus_server.analyses.service import AnalysisService
from nimbus_server.clock import now
from nimbus_server.consumers.store import ConsumerStore
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
from nimbus_server.postgres.notifications import PostgresBus
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.postgres.retention import Retention
from nimbus_server.postgres.session import refuse_unfit
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.projects.service import ProjectService
from nimbus_server.projects.store import ProjectStore
from nimbus_server.rpc.admission import Admission
from nimbus_server.rpc.forward import Forwarder
from nimbus_server.rpc.server import Server
from nimbus_server.segments.store import SegmentStore
from nimbus_server.settings import Settings
from nimbus_server.stream.hub import Hub
from nimbus_server.stream.redis_bus import RedisBus
from nimbus_server.stream.rights import Rights
from nimbus_server.stream.service import StreamService
from nimbus_server.stream.socket_stream import SocketStreams
from nimbus_server.stream.store import LogReader
from nimbus_server.stream.streams import Streams
from nimbus_server.stream.wakeups import Bus, Wakeups
from nimbus_server.stream.websocket import WebSockets
from nimbus_server.telemetry.gauges import Gauges

log = structlog.get_logger(__name__)

MAINTENANCE_SECONDS = 60.0
# For a first look at a database, which may still be away when a worker starts.
CONNECT_SECONDS_MAX = 3
# For gc.set_threshold. To look at everything takes the collector 80 ms where 1,000 streams are open, which Python's own
# thresholds had it do every second under load.
GC_THRESHOLDS = 2_000, 10, 50


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a worker listens, as far as it does.

    `socket` and `websocket_socket` are the edge's ways in, private to this user. `grpc_port` is a port of
    `settings.bind_address`, which it shares with the other workers.
    """

    socket: Path | None = None
    websocket_socket: Path | None = None
    grpc_port: int | None = None


class Worker:
    """One server process.

    It listens at the addresses in `at`. Making one raises StartupError where one is taken, as does `start`.
    """

    def __init__(self, settings: Settings, at: Addresses) -> None:
        secrets, tokens = SecretBox(settings), Tokens(settings)
        self._dsn = settings.database_url.get_secret_value() if settings.database_url else ""
        self._database = Database(settings)
        self._partitions = Partitions(self._database)
        self._retention = (
            Retention(self._database, self._partitions, settings.retention_days) if settings.retention_days else None
        )
        self._projects = ProjectStore(self._database)
        self._passwords = Passwords(settings.bcrypt_cost)
        self._drain_seconds = settings.drain_seconds
        accounts, access = AccountStore(self._database), ProjectAccess(self._projects)
        consumers = ConsumerStore(self._database)
        self._hub = Hub(LogReader(self._database))
        self._rights = Rights(accounts, self._projects, consumers, now)
        self._wakeups = Wakeups(self._hub, _bus(settings))
        self._gauges = Gauges(consumers, SegmentStore(self._database))
        self._metrics_address = (settings.bind_address, settings.metrics_port) if settings.metrics_port else None
        self._ingest = Ingest(EventLog(self._database, self._partitions), self._wakeups.committed)
        self._ingest_service = IngestService(access, self._ingest, now, settings.retention_days)
        streams = Streams(self._hub, self._rights, consumers)
        self._analyst = Forwarder(settings.analyst_socket) if settings.analyst_socket else None
        admission = Admission(Authenticator(accounts, tokens, secrets), now)
        self._at = at
        self._sockets = WebSockets(SocketStreams(access, streams, consumers, admission))
        self._server = Server(
            {
                "AuthService": AuthService(accounts, tokens, self._passwords),
                "ProjectService": ProjectService(self._projects, secrets),
                "EventService": EventService(access, self._ingest_service, EventReader(self._database)),
                "StreamService": StreamService(access, streams, consumers, tokens, now),
                "MetricsService": MetricsService(access, MetricsStore(self._database)),
                "AnalysisService": AnalysisService(access, self._analyst),
                "HealthService": HealthService(HealthStore(self._database), settings.app_name),
            },
            admission,
        )
        if at.socket:
            self._server.listen_on_socket(at.socket)
        if at.grpc_port is not None:
            self._server.listen_on_port(settings.bind_address, at.grpc_port)

    async def start(self) -> None:
        """Begin to serve."""
        # First what may fail: there is nothing to undo then.
        if self._metrics_address:
            self._gauges.serve(*self._metrics_address)
        if self._at.websocket_socket:
            await self._sockets.start(self._at.websocket_socket)
        await refuse_unfit(self._dsn, CONNECT_SECONDS_MAX)
        await self._database.open()
        await self._server.start()
        # What is here by now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    async def write(self) -> None:
        """Commit what is ingested, for as long as it runs."""
        await self._ingest.run()

    async def stream(self) -> None:
        """Keep streams going, for as long as it runs."""
        async with asyncio.TaskGroup() as tasks:
            for part in (self._hub, self._rights, self._wakeups):
                tasks.create_task(part.run())
            if self._metrics_address:
                tasks.create_task(self._gauges.run())

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
        self._sockets.go_unready()
        await self._server.go_unready(self._drain_seconds)
        self._ingest_service.end_streams()
        self._hub.end_all()
        await asyncio.gather(self._server.stop(self._drain_seconds), self._sockets.stop(self._drain_seconds))
        if self._analyst:
            await self._analyst.close()
        await self._wakeups.close()
        self._gauges.close()
        self._passwords.close()
        await self._database.close()


def _bus(settings: Settings) -> Bus:
    if settings.redis_url is None:
        return PostgresBus(settings)
    return RedisBus(settings.redis_url.get_secret_value(), settings.redis_pool_size)


async def serve(settings: Settings, at: Addresses) -> None:
    """Run a worker until SIGTERM or SIGINT, then drain it."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    worker = Worker(settings, at)
    await worker.start()
    log.info("serving", **{name: value if value is None else str(value) for name, value in asdict(at).items()})
    stopping = asyncio.create_task(stopped.wait())
    maintenance = asyncio.create_task(worker.maintain())
    working = [asyncio.create_task(worker.write()), asyncio.create_task(worker.stream())]
    # A worker that can't write or stream is of no use: it ends, and who started it starts another.
    await asyncio.wait((stopping, *working), return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in working if task.done()]
    maintenance.cancel()
    await worker.stop()
    for task in failed:
        task.result()
    for task in working:
        task.cancel()
    log.info("stopped")
