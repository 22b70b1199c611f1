"""What the database knows of projects: their names, and the key of one."""

from uuid import UUID

import psycopg

from nimbus_server.errors import StartupError
from nimbus_server.postgres.session import connect
from nimbus_server.settings import Settings

PROJECTS_SHOWN = 50


async def newest_projects(settings: Settings) -> list[tuple[UUID, str]]:
    """Ids and names of the newest projects. Raises StartupError."""
    dsn = settings.database_url.get_secret_value() if settings.database_url else ""
    query = "SELECT id, name FROM projects ORDER BY created_at DESC LIMIT %s"
    try:
        async with await connect(dsn) as connection:
            return await (await connection.execute(query, (PROJECTS_SHOWN,))).fetchall()
    except psycopg.Error as error:
        raise StartupError(f"The database can't be reached: {error}".strip()) from error


async def sealed_key(settings: Settings, project_id: UUID) -> tuple[str, bytes]:
    """Id and encrypted secret of the key that is in force. Raises StartupError."""
    dsn = settings.database_url.get_secret_value() if settings.database_url else ""
    query = "SELECT id, secret_encrypted FROM api_keys WHERE project_id = %s AND expires_at IS NULL"
    try:
        async with await connect(dsn) as connection:
            row = await (await connection.execute(query, (project_id,))).fetchone()
    except psycopg.Error as error:
        raise StartupError(f"The database can't be reached: {error}".strip()) from error
    if row is None:
        raise StartupError(f"The project {project_id} has no key.")
    return str(row[0]), bytes(row[1])
