"""`nimbus segments`: how far the segments are, and making them anew."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from nimbus_server.errors import NimbusError, StartupError
from nimbus_server.importer.target import with_database
from nimbus_server.postgres.database import Database
from nimbus_server.segments.store import SegmentStore, Status
from nimbus_server.segments.upkeep_store import UpkeepStore
from nimbus_server.settings import Settings
from nimbus_server.terminal import say


async def show_status(settings: Settings) -> None:
    """Print a table of all projects that have events. Raises StartupError where the database can't be reached."""
    async with _opened(settings) as database:
        rows = await SegmentStore(database).status()
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 200
    console.print(_table(rows) if rows else "No project has events yet.")


async def rebuild(settings: Settings, project_id: UUID | None) -> None:
    """Give up the segments of a project, or of all, so that the analyst makes them anew. Raises StartupError."""
    async with _opened(settings) as database:
        if project_id is not None:
            await SegmentStore(database).mark(project_id)
        retired = await UpkeepStore(database).rebuild(project_id)
    say(f"Gave up {retired:,} segments. The analyst makes them anew; questions read the log until then.")


def _table(rows: list[Status]) -> Table:
    table = Table("project", box=None)
    for name in ("exported", "log end", "lag", "files", "rows", "size"):
        table.add_column(name, justify="right")
    for row in rows:
        numbers = (row.exported, row.log_end, row.lag, row.files, row.rows)
        table.add_row(str(row.project_id), *(f"{number:,}" for number in numbers), decimal(row.bytes))
    return table


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    database = Database(with_database(settings))
    await database.open()
    try:
        yield database
    except NimbusError as error:
        raise StartupError(str(error)) from error
    finally:
        await database.close()
