"""`nimbus import`: from files and pipes into the log of a project, until all is there or Ctrl-C."""

import asyncio
import gc
import logging
import signal
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from uuid import UUID

import structlog

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.importer.bar import Bar
from nimbus_server.importer.files import find_sources
from nimbus_server.importer.reader import read_blocks
from nimbus_server.importer.run import Progress, import_blocks
from nimbus_server.importer.side_file import SideFiles
from nimbus_server.importer.source import Block, FileDamagedError, Format, Source
from nimbus_server.importer.store import check_project
from nimbus_server.importer.target import with_database
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.settings import Settings
from nimbus_server.terminal import say, visible

DONE, NOT_ALL = 0, 1
# As shells have it for a program that SIGINT ended.
STOPPED = 130
AGAIN = "Run the same command again: it goes on from there, and stores nothing twice."
AGAIN_ONCE = "Run the same command again, with the same input from its beginning: it stores nothing twice."


def import_files(
    settings: Settings,
    project_id: UUID,
    given: Sequence[str],
    form: Format | None,
    rejected: Path | None,
    names: Sequence[str] = (),
) -> Coroutine[None, None, int]:
    """Find what is given; then import it in its order, say what became of it, and return the exit status.

    `names` are as in find_sources. Raises StartupError where it can't begin, or can't go on.
    """
    settings = with_database(settings)
    return _import_sources(settings, project_id, find_sources(given, form, names), rejected)


async def _import_sources(
    settings: Settings, project_id: UUID, sources: Sequence[Source], rejected: Path | None
) -> int:
    await check_project(settings, project_id)
    _silence()
    # Blocks are many objects and no cycles, and what is there now stays.
    gc.freeze()
    gc.set_threshold(100_000)
    progress = Progress()
    with SideFiles(sources, rejected) as side_files:
        with Bar([source.size for source in sources]) as bar:
            work = asyncio.create_task(_import(settings, project_id, sources, progress, bar, side_files))
            again = AGAIN_ONCE if any(source.once for source in sources) else AGAIN
            status, ending = await _ended(work, progress, again)
        if ending:
            say(ending, err=True)
        say(_summary(progress, side_files))
    return status


async def _import(
    settings: Settings, project_id: UUID, sources: Sequence[Source], progress: Progress, bar: Bar, side_files: SideFiles
) -> None:
    def done(block: Block) -> None:
        side_files.add(block)
        bar.move(block)
        for rejected in block.rejected:
            if rejected.to_end:
                bar.say(visible(f"{block.source.name}: {rejected.message}"))

    def away() -> None:
        bar.say("The database can't be reached. Trying again ...")

    database = Database(settings)
    await database.open()
    try:
        log = EventLog(database, Partitions(database))
        async with aclosing(read_blocks(sources, settings.retention_days)) as blocks:
            await import_blocks(log, project_id, blocks, progress, done, away)
    finally:
        await database.close()


async def _ended(work: asyncio.Task[None], progress: Progress, again: str) -> tuple[int, str]:
    """The exit status, and why it is over before all was read. SIGINT or SIGTERM ends it."""
    loop = asyncio.get_running_loop()
    for ends in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(ends, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        return STOPPED, f"Stopped {_place(progress)}. {again}"
    except FileDamagedError as error:
        return NOT_ALL, f"{error} What comes before is stored. Run the same command again when that is mended."
    except NimbusError as error:
        if error.reason is Reason.PROJECT_NOT_FOUND:
            return NOT_ALL, f"Given up {_place(progress)}: the project was deleted."
        return NOT_ALL, f"Given up {_place(progress)}: the database can't be reached. {again}"
    return NOT_ALL if progress.refused else DONE, ""


def _place(progress: Progress) -> str:
    if progress.last is None:
        return "at the beginning"
    return f"after line {progress.last.last_line:,} of {visible(str(progress.last.source.name))}"


def _summary(progress: Progress, side_files: SideFiles) -> str:
    told = f"{progress.stored:,} events stored, {progress.there_already:,} there already, {progress.refused:,} refused"
    if progress.refused_lines != progress.refused:
        told += f" ({progress.refused_lines:,} lines)"
    return (
        f"{told}: see {', '.join(visible(str(path)) for path in side_files.written)}"
        if side_files.written
        else f"{told}."
    )


def _silence() -> None:
    """What becomes of the database is told in sentences here, not in logs."""
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
