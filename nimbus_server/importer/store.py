"""The database of an import: how it is connected to, and a look at it before anything is read."""

from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row

from nimbus_server.errors import StartupError
from nimbus_server.postgres.migrate import missing
from nimbus_server.settings import Settings

CONNECT_SECONDS_MAX = 10
# Knowing which project it is, the planner takes one that has been filled since the last ANALYZE for an empty one, and
# looks for each repeat through its whole log. Not knowing, it takes it for an average one.
SESSION_OPTIONS = "-c plan_cache_mode=force_generic_plan"


def with_session_options(dsn: str) -> str:
    """The connection string with what an import needs. Raises StartupError where it is none."""
    try:
        options = conninfo_to_dict(dsn).get("options") or ""
        return make_conninfo(dsn, options=f"{options} {SESSION_OPTIONS}".strip())
    except psycopg.Error as error:
        raise StartupError(f"NIMBUS_DATABASE_URL is not a connection string: {error}".strip()) from None


async def check_project(settings: Settings, project_id: UUID) -> None:
    """Raise StartupError unless the database can be reached, has this version's schema, and holds the project."""
    dsn = settings.database_url.get_secret_value() if settings.database_url else ""
    try:
        async with await psycopg.AsyncConnection.connect(
            dsn, connect_timeout=CONNECT_SECONDS_MAX, row_factory=tuple_row
        ) as connection:
            lacking = await missing(connection)
            if lacking:
                raise StartupError(f"The database lacks the migrations {', '.join(lacking)}. Run `nimbus migrate`.")
            found = await connection.execute("SELECT 1 FROM streams WHERE project_id = %s", (project_id,))
            if await found.fetchone() is None:
                raise StartupError(f"There is no project {project_id} in this database.")
    except psycopg.Error as error:
        raise StartupError(f"The database can't be reached: {error}".strip()) from error
