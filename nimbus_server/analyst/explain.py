"""`nimbus query --explain`: a question is answered here, so that its statements can be shown."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

from nimbus_server.analyses.question import Asked
from nimbus_server.analyses.questions import read_question
from nimbus_server.analyst.engine import Engine
from nimbus_server.analyst.memory import budget
from nimbus_server.analyst.state import state
from nimbus_server.clock import now
from nimbus_server.errors import NimbusError, StartupError
from nimbus_server.importer.store import check_project
from nimbus_server.importer.target import with_database
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import plain_conninfo
from nimbus_server.projects.store import ProjectStore
from nimbus_server.segments.manifest import segments_folder
from nimbus_server.segments.store import SegmentStore
from nimbus_server.settings import Settings


async def explain(settings: Settings, project_id: UUID, rpc: str, request: Any) -> tuple[list[str], bytes]:
    """The SQL of a question, and its encoded answer. First PostgreSQL's, for what is in no segment; then DuckDB's.

    For the database and the segments of these settings. Raises StartupError.
    """
    folder = segments_folder(await asyncio.to_thread(lambda: settings.data_dir.expanduser().resolve()))
    settings = with_database(settings)
    await check_project(settings, project_id)
    dsn = settings.database_url.get_secret_value() if settings.database_url else ""
    database = Database(settings)
    await database.open()
    with tempfile.TemporaryDirectory(prefix="nimbus-explain-") as spill:
        engine = Engine(plain_conninfo(dsn, "nimbus"), folder, Path(spill), budget(settings.analyst_memory), 1)
        try:
            timezone = await ProjectStore(database).timezone(project_id)
            question = read_question(rpc, request, Asked(now(), timezone))
            store = SegmentStore(database)
            scan, as_of = await state(store, folder, settings.retention_days, project_id, question.needs, now())
            statements = [scan.tail_query] if scan.snapshot.log_end > scan.snapshot.exported else []
            return statements, await engine.answer(question, scan, as_of, statements.append)
        except NimbusError as error:
            raise StartupError("\n".join([wrong.message for wrong in error.violations] or [error.message])) from error
        finally:
            engine.close()
            await database.close()
