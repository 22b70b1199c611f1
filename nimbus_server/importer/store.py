"""A look at the database of an import before anything is read."""

from uuid import UUID

import psycopg

from nimbus_server.errors import StartupError
from nimbus_server.postgres.migrate import missing
from nimbus_server.postgres.session import connect
from nimbus_server.settings import Settings

CONNECT_SECONDS_MAX = 10


async def check_project(settings: Settings, project_id: UUID) -> None:
    """Raise StartupError unless the database can be reached, has this version's schema, and holds the project."""
    dsn = settings.database_url.get_secret_value() if settings.database_url else ""
    try:
        async with await connect(dsn, connect_timeout=CONNECT_SECONDS_MAX) as connection:
            lacking = await missing(connection)
            if lacking:
                raise StartupError(f"The database lacks the migrations {', '.join(lacking)}. Run `nimbus migrate`.")
            found = await connection.execute("SELECT 1 FROM streams WHERE project_id = %s", (project_id,))
            if await found.fetchone() is None:
                raise StartupError(f"There is no project {project_id} in this database.")
    except psycopg.Error as error:
        raise StartupError(f"The database can't be reached: {error}".strip()) from error
