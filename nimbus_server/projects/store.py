"""Projects, their members and keys in PostgreSQL."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row

from nimbus_server.errors import project_not_found
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import Connection

# Every look at a project goes through membership: what is not the caller's is not there.
SELECT_PROJECT = sql.SQL(
    "SELECT p.id, p.name, p.timezone, k.id AS api_key_id, p.created_at, p.updated_at FROM projects p "
    "JOIN members m ON m.project_id = p.id "
    "JOIN api_keys k ON k.project_id = p.id AND k.expires_at IS NULL "
    "WHERE m.user_id = %(user_id)s "
)
# What one transaction deletes of each table, oldest first: found and bounded by the primary key.
PURGE_STEP_EVENTS = 5000
PURGE_STEPS = (
    """
    DELETE FROM events WHERE project_id = %(project_id)s AND (ts, id) <= (
        (SELECT ts, id FROM events WHERE project_id = %(project_id)s ORDER BY ts, id LIMIT 1 OFFSET %(others)s)
        UNION ALL SELECT 'infinity', 'ffffffff-ffff-ffff-ffff-ffffffffffff' LIMIT 1
    )
    """,
    """
    DELETE FROM event_counts WHERE project_id = %(project_id)s AND minute <= coalesce((
        SELECT minute FROM event_counts WHERE project_id = %(project_id)s ORDER BY minute LIMIT 1 OFFSET %(others)s
    ), 'infinity')
    """,
    """
    DELETE FROM event_keys WHERE project_id = %(project_id)s AND id <= coalesce((
        SELECT id FROM event_keys WHERE project_id = %(project_id)s ORDER BY id LIMIT 1 OFFSET %(others)s
    ), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    """,
)


@dataclass(frozen=True, slots=True)
class Project:
    """A project as its members see it; `timezone` is an IANA name, `api_key_id` the key in force."""

    id: UUID
    name: str
    timezone: str
    api_key_id: str
    created_at: datetime
    updated_at: datetime


class ProjectStore:
    """Every method raises what Database.transaction does; those that name a project, PROJECT_NOT_FOUND too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, project_id: UUID, name: str, owner: UUID, key_id: str, secret_encrypted: bytes, timezone: str = "UTC"
    ) -> Project:
        """Store a project with its owner, its key and the counter of its log."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO projects (id, name, timezone) VALUES (%s, %s, %s)", (project_id, name, timezone)
            )
            await connection.execute(
                "INSERT INTO members (project_id, user_id, role) VALUES (%s, %s, 'owner')", (project_id, owner)
            )
            await connection.execute("INSERT INTO streams (project_id) VALUES (%s)", (project_id,))
            await _add_key(connection, project_id, key_id, secret_encrypted)
            return await _project(connection, owner, project_id)

    async def page(self, user_id: UUID, size: int, after: tuple[datetime, UUID] | None) -> list[Project]:
        """Up to `size` projects of the user, oldest first, after a (created_at, id)."""
        where = sql.SQL("AND (p.created_at, p.id) > (%(at)s, %(id)s) ") if after else sql.SQL("")
        at, project_id = after or (None, None)
        async with (
            self._database.transaction() as connection,
            connection.cursor(row_factory=class_row(Project)) as cursor,
        ):
            await cursor.execute(
                SELECT_PROJECT + where + sql.SQL("ORDER BY p.created_at, p.id LIMIT %(size)s"),
                {"user_id": user_id, "at": at, "id": project_id, "size": size},
            )
            return await cursor.fetchall()

    async def get(self, user_id: UUID, project_id: UUID) -> Project:
        """The project."""
        async with self._database.transaction() as connection:
            return await _project(connection, user_id, project_id)

    async def is_member(self, user_id: UUID, project_id: UUID) -> bool:
        """Whether the project is the user's to see."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "SELECT 1 FROM members WHERE project_id = %s AND user_id = %s", (project_id, user_id)
            )
            return await cursor.fetchone() is not None

    async def existing(self, project_ids: Collection[UUID]) -> set[UUID]:
        """Those of the projects that are there."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute("SELECT id FROM projects WHERE id = ANY(%s)", (list(project_ids),))
            return {project_id for (project_id,) in await cursor.fetchall()}

    async def memberships(self, pairs: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
        """Those of the pairs of user and project where the one is a member of the other."""
        users, projects = [user for user, _ in pairs], [project for _, project in pairs]
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "SELECT user_id, project_id FROM members "
                "JOIN unnest(%s::uuid[], %s::uuid[]) AS asked (user_id, project_id) USING (user_id, project_id)",
                (users, projects),
            )
            return {(user_id, project_id) for user_id, project_id in await cursor.fetchall()}

    async def timezone(self, project_id: UUID) -> str:
        """The project's time zone, an IANA name, whoever asks: the caller has checked that they may."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute("SELECT timezone FROM projects WHERE id = %s", (project_id,))
            row = await cursor.fetchone()
        if row is None:
            raise project_not_found()
        return str(row[0])

    async def update(self, user_id: UUID, project_id: UUID, name: str | None, timezone: str | None) -> Project:
        """Change what is not None."""
        async with self._database.transaction() as connection:
            await _project(connection, user_id, project_id)
            await connection.execute(
                "UPDATE projects SET name = coalesce(%s, name), timezone = coalesce(%s, timezone), updated_at = now() "
                "WHERE id = %s",
                (name, timezone, project_id),
            )
            return await _project(connection, user_id, project_id)

    async def delete(self, user_id: UUID, project_id: UUID) -> None:
        """Delete all but the log, which nothing leads to any more, and have that purged."""
        async with self._database.transaction() as connection:
            await _project(connection, user_id, project_id)
            await connection.execute("DELETE FROM projects WHERE id = %s", (project_id,))
            await connection.execute(
                "INSERT INTO purges (project_id) VALUES (%s) ON CONFLICT (project_id) DO NOTHING", (project_id,)
            )

    async def rotate_key(
        self, user_id: UUID, project_id: UUID, key_id: str, secret_encrypted: bytes, grace_seconds: int
    ) -> Project:
        """Put a new key in force. The one before works for `grace_seconds` more; with 0, every older one is dead."""
        async with self._database.transaction() as connection:
            await _project(connection, user_id, project_id)
            # The lock makes two rotations at once follow each other.
            await connection.execute("UPDATE projects SET updated_at = now() WHERE id = %s", (project_id,))
            await connection.execute(
                "DELETE FROM api_keys WHERE project_id = %s AND (expires_at <= now() OR %s)",
                (project_id, grace_seconds == 0),
            )
            await connection.execute(
                "UPDATE api_keys SET expires_at = now() + make_interval(secs => %s) "
                "WHERE project_id = %s AND expires_at IS NULL",
                (grace_seconds, project_id),
            )
            await _add_key(connection, project_id, key_id, secret_encrypted)
            return await _project(connection, user_id, project_id)

    async def purge_step(self) -> bool:
        """Delete some of what deleted projects left behind; False where nothing is left."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "SELECT project_id FROM purges ORDER BY requested_at LIMIT 1 FOR UPDATE SKIP LOCKED"
            )
            row = await cursor.fetchone()
            if row is None:
                return False
            which = {"project_id": row[0], "others": PURGE_STEP_EVENTS - 1}
            deleted = [await connection.execute(step, which) for step in PURGE_STEPS]
            if not any(step.rowcount for step in deleted):
                await connection.execute("DELETE FROM purges WHERE project_id = %s", (row[0],))
            return True


async def _project(connection: Connection, user_id: UUID, project_id: UUID) -> Project:
    async with connection.cursor(row_factory=class_row(Project)) as cursor:
        await cursor.execute(
            SELECT_PROJECT + sql.SQL("AND p.id = %(project_id)s"), {"user_id": user_id, "project_id": project_id}
        )
        project = await cursor.fetchone()
    if project is None:
        raise project_not_found()
    return project


async def _add_key(connection: Connection, project_id: UUID, key_id: str, secret_encrypted: bytes) -> None:
    await connection.execute(
        "INSERT INTO api_keys (id, project_id, secret_encrypted) VALUES (%s, %s, %s)",
        (key_id, project_id, secret_encrypted),
    )
