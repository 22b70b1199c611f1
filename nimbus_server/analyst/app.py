"""The one place where the analyst is wired together: start, serve, stop."""

import asyncio
import signal
from pathlib import Path

import structlog

from nimbus_server.analyst.engine import Engine
from nimbus_server.analyst.memory import budget, give_way
from nimbus_server.analyst.service import AnalystService
from nimbus_server.analyst.turns import Turns
from nimbus_server.clock import now
from nimbus_server.errors import StartupError
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import plain_conninfo, refuse_unfit
from nimbus_server.projects.store import ProjectStore
from nimbus_server.rpc.server import Server
from nimbus_server.segments.keeper import Keeper
from nimbus_server.segments.manifest import segments_folder
from nimbus_server.segments.store import SegmentStore
from nimbus_server.settings import Settings

log = structlog.get_logger(__name__)

RUNNING_MAX_LEAST, RUNNING_MAX_MOST = 3, 4
DRAIN_SECONDS = 1.0
# For a first look at a database, which may still be away.
CONNECT_SECONDS_MAX = 3
# It has few statements at a time, and none that is long.
POOL_SIZE, POOL_OVERFLOW = 2, 6


async def serve(settings: Settings, socket: Path) -> None:
    """Run an analyst until SIGTERM or SIGINT; the segments are in settings.data_dir. Raises StartupError."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    give_way()
    segments = segments_folder(await asyncio.to_thread(lambda: settings.data_dir.expanduser().resolve()))
    allowed = budget(settings.analyst_memory)
    running_max = min(max(allowed.threads + 1, RUNNING_MAX_LEAST), RUNNING_MAX_MOST)
    dsn = settings.database_url.get_secret_value() if settings.database_url else ""
    conninfo = plain_conninfo(dsn, "nimbus")
    database = Database(settings.model_copy(update={"db_pool_size": POOL_SIZE, "db_max_overflow": POOL_OVERFLOW}))
    store = SegmentStore(database)
    try:
        engine = Engine(conninfo, segments, segments / "tmp", allowed, running_max)
    except OSError as error:
        raise StartupError(f"The folder {segments} can't be written: {error.strerror}.") from None
    service = AnalystService(
        store, ProjectStore(database), engine, Turns(running_max), now, segments, settings.retention_days
    )
    server = Server({"AnalysisService": service}, None)
    server.listen_on_socket(socket)
    keeper = Keeper(database, settings)
    await refuse_unfit(dsn, CONNECT_SECONDS_MAX)
    await database.open()
    await server.start()
    keeping = asyncio.create_task(keeper.run())
    log.info(
        "answering", socket=str(socket), segments=str(segments), threads=allowed.threads, memory=allowed.memory_bytes
    )
    stopping = asyncio.create_task(stopped.wait())
    # Without its keeper it would answer ever more slowly: it ends, and who started it starts another.
    await asyncio.wait((stopping, keeping), return_when=asyncio.FIRST_COMPLETED)
    keeping.cancel()
    await server.stop(DRAIN_SECONDS)
    await asyncio.wait({keeping})
    engine.close()
    await database.close()
    if not keeping.cancelled():
        keeping.result()
    log.info("stopped")
