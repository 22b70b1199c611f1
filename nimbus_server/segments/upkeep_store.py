"""The manifest beside its readers: rebuilding, retention, files that nobody reads any more, and erasures."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from nimbus_server.errors import project_not_found
from nimbus_server.postgres.database import Database
from nimbus_server.segments.manifest import Erasure, IdentityField

RESET = "UPDATE segment_marks SET last_seq = 0, epoch = epoch + 1 WHERE %(id)s::uuid IS NULL OR project_id = %(id)s"
RETIRE_ALL = """
UPDATE segments SET retired_at = now() WHERE retired_at IS NULL AND (%(id)s::uuid IS NULL OR project_id = %(id)s)
"""
RETIRE_BEFORE = "UPDATE segments SET retired_at = now() WHERE retired_at IS NULL AND ts_max < %s"
RETIRED = "SELECT project_id, id FROM segments WHERE retired_at < now() - %s"
FORGET = "DELETE FROM segments WHERE project_id = %s AND id = %s AND retired_at IS NOT NULL"
KNOWN = "SELECT g.id FROM projects p LEFT JOIN segments g ON g.project_id = p.id WHERE p.id = %s"

BEGIN_ERASURE = """
INSERT INTO erasures (project_id, field, value, upto)
SELECT project_id, %s, %s, last_seq FROM streams WHERE project_id = %s
ON CONFLICT (project_id, field, value) DO UPDATE SET upto = EXCLUDED.upto
RETURNING upto
"""
# Of both fields, so that each statement is a constant.
ERASE = """
DELETE FROM events WHERE project_id = %(project_id)s AND seq > %(after)s AND seq <= %(until)s
    AND CASE %(field)s WHEN 'user_id' THEN user_id ELSE anonymous_id END = %(value)s
"""
NEW_EPOCH = "UPDATE segment_marks SET epoch = epoch + 1 WHERE project_id = %s"
ERASURES = "SELECT field, value, upto FROM erasures WHERE project_id = %s"
WITH_ERASURES = "SELECT DISTINCT project_id FROM erasures"
# Unless it was asked for again meanwhile.
END_ERASURE = "DELETE FROM erasures WHERE project_id = %s AND field = %s AND value = %s AND upto = %s"


class UpkeepStore:
    """Every method raises what Database.transaction does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rebuild(self, project_id: UUID | None) -> int:
        """Retire every segment of a project, or of all, so that they are exported anew; return how many there were."""
        async with self._database.transaction() as connection:
            await connection.execute(RESET, {"id": project_id})
            return (await connection.execute(RETIRE_ALL, {"id": project_id})).rowcount

    async def retire_before(self, cut: datetime) -> int:
        """Retire the segments whose events are all older, and return how many."""
        async with self._database.transaction() as connection:
            return (await connection.execute(RETIRE_BEFORE, (cut,))).rowcount

    async def retired(self, age: timedelta) -> list[tuple[UUID, UUID]]:
        """Project and id of the segments that were retired that long ago."""
        return [(project_id, segment_id) for project_id, segment_id in await self._all(RETIRED, (age,))]

    async def forget(self, project_id: UUID, segment_id: UUID) -> None:
        """Remove a retired segment, whose file is deleted, from the manifest."""
        async with self._database.transaction() as connection:
            await connection.execute(FORGET, (project_id, segment_id))

    async def known(self, project_id: UUID) -> set[UUID] | None:
        """The ids of a project's segments, live or retired; None where there is no such project."""
        rows = await self._all(KNOWN, (project_id,))
        return {row[0] for row in rows if row[0] is not None} if rows else None

    async def begin_erasure(self, project_id: UUID, field: IdentityField, value: str) -> Erasure:
        """Hide the events that are in the log by now and have this value. Raises PROJECT_NOT_FOUND.

        The project must have a mark.
        """
        rows = await self._all(BEGIN_ERASURE, (field, value, project_id))
        if not rows:
            raise project_not_found()
        return Erasure(field, value, rows[0][0])

    async def erase(self, project_id: UUID, erasure: Erasure, after: int, until: int) -> int:
        """Delete the events of an erasure in a range of positions, and return how many there were."""
        values = {"project_id": project_id, "field": erasure.field, "value": erasure.value}
        async with self._database.transaction() as connection:
            deleted = await connection.execute(ERASE, values | {"after": after, "until": until})
            return deleted.rowcount

    async def new_epoch(self, project_id: UUID) -> None:
        """Let nobody publish what they have read before."""
        async with self._database.transaction() as connection:
            await connection.execute(NEW_EPOCH, (project_id,))

    async def erasures(self, project_id: UUID) -> list[Erasure]:
        """The erasures that are under way."""
        return [Erasure(*row) for row in await self._all(ERASURES, (project_id,))]

    async def with_erasures(self) -> list[UUID]:
        """The projects that have erasures under way."""
        return [project_id for (project_id,) in await self._all(WITH_ERASURES, ())]

    async def end_erasure(self, project_id: UUID, erasure: Erasure) -> None:
        """The log and the segments hold no event of it any more."""
        async with self._database.transaction() as connection:
            await connection.execute(END_ERASURE, (project_id, erasure.field, erasure.value, erasure.upto))

    async def _all(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        async with self._database.transaction() as connection:
            return await (await connection.execute(query, values)).fetchall()
