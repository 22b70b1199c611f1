"""A project's key, out of the database."""

from uuid import UUID

import psycopg

from nimbus_server.errors import StartupError
from nimbus_server.settings import Settings


async def sealed_key(settings: Settings, project_id: UUID) -> tuple[str, bytes]:
    """Id and encrypted secret of the key that is in force. Raises StartupError."""
    dsn = settings.database_url.get_secret_value() if settings.database_url else ""
    query = "SELECT id, secret_encrypted FROM api_keys WHERE project_id = %s AND expires_at IS NULL"
    try:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            row = await (await connection.execute(query, (project_id,))).fetchone()
    except psycopg.Error as error:
        raise StartupError(f"The database can't be reached: {error}".strip()) from error
    if row is None:
        raise StartupError(f"The project {project_id} has no key.")
    return str(row[0]), bytes(row[1])
