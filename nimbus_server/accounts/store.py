"""Users and sessions in PostgreSQL."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.postgres.database import Database


@dataclass(frozen=True, slots=True)
class User:
    """A registered person."""

    id: UUID
    email: str
    password_hash: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key as it is kept."""

    project_id: UUID
    secret_encrypted: bytes


class AccountStore:
    """Every method raises what Database.transaction does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_user(self, user_id: UUID, email: str, password_hash: str) -> None:
        """Store a user. Raises NimbusError with EMAIL_TAKEN where the address has one, in whatever case."""
        try:
            async with self._database.transaction() as connection:
                await connection.execute(
                    "INSERT INTO users (id, email, password_hash) VALUES (%s, %s, %s)", (user_id, email, password_hash)
                )
        except psycopg.errors.UniqueViolation:
            raise NimbusError(Reason.EMAIL_TAKEN, "A user with this email exists. Log in instead.") from None

    async def user_by_email(self, email: str) -> User | None:
        """The user with this address, whatever the case of its ASCII letters."""
        return await self._user(
            "SELECT id, email, password_hash, created_at FROM users "
            'WHERE lower(email COLLATE "C") = lower(%s::text COLLATE "C")',
            email,
        )

    async def set_password_hash(self, user_id: UUID, old: str, new: str) -> None:
        """Replace a password hash, unless it has changed meanwhile."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "UPDATE users SET password_hash = %s WHERE id = %s AND password_hash = %s", (new, user_id, old)
            )

    async def user(self, user_id: UUID) -> User | None:
        """The user with this id."""
        return await self._user("SELECT id, email, password_hash, created_at FROM users WHERE id = %s", user_id)

    async def _user(self, query: psycopg.abc.QueryNoTemplate, key: object) -> User | None:
        async with self._database.transaction() as connection, connection.cursor(row_factory=class_row(User)) as cursor:
            await cursor.execute(query, (key,))
            return await cursor.fetchone()

    async def start_session(self, session_id: UUID, user_id: UUID, refresh_token_id: UUID, ttl_seconds: int) -> None:
        """Store a session whose only good refresh token is this one, and forget the user's expired ones."""
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM sessions WHERE user_id = %s AND expires_at < now()", (user_id,))
            await connection.execute(
                "INSERT INTO sessions (id, user_id, refresh_token_id, expires_at) "
                "VALUES (%s, %s, %s, now() + make_interval(secs => %s))",
                (session_id, user_id, refresh_token_id, ttl_seconds),
            )

    async def rotate_session(self, session_id: UUID, spent: UUID, fresh: UUID, ttl_seconds: int) -> bool:
        """Replace the refresh token; False where `spent` is not the good one or the session has ended."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "UPDATE sessions SET refresh_token_id = %s, refreshed_at = now(), "
                "expires_at = now() + make_interval(secs => %s) "
                "WHERE id = %s AND refresh_token_id = %s AND ended_at IS NULL",
                (fresh, ttl_seconds, session_id, spent),
            )
            return cursor.rowcount == 1

    async def end_session(self, session_id: UUID) -> None:
        """End a session; ending it twice is no error."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "UPDATE sessions SET ended_at = now() WHERE id = %s AND ended_at IS NULL", (session_id,)
            )

    async def session_is_open(self, session_id: UUID) -> bool:
        """Whether the session is there and has not ended."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "SELECT 1 FROM sessions WHERE id = %s AND ended_at IS NULL", (session_id,)
            )
            return await cursor.fetchone() is not None

    async def api_key(self, key_id: str) -> StoredKey | None:
        """The key with this id, unless it was rotated away.

        Asked for each call, so that a rotated key is dead at once in every worker.
        """
        async with (
            self._database.transaction() as connection,
            connection.cursor(row_factory=class_row(StoredKey)) as cursor,
        ):
            await cursor.execute(
                "SELECT project_id, secret_encrypted FROM api_keys "
                "WHERE id = %s AND (expires_at IS NULL OR expires_at > now())",
                (key_id,),
            )
            return await cursor.fetchone()

    async def api_keys_in_force(self, key_ids: Collection[str]) -> set[str]:
        """Those of the keys that are not rotated away."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "SELECT id FROM api_keys WHERE id = ANY(%s) AND (expires_at IS NULL OR expires_at > now())",
                (list(key_ids),),
            )
            return {key_id for (key_id,) in await cursor.fetchall()}

    async def open_sessions(self, session_ids: Collection[UUID]) -> set[UUID]:
        """Those of the sessions that have neither ended nor expired."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "SELECT id FROM sessions WHERE id = ANY(%s) AND ended_at IS NULL AND expires_at > now()",
                (list(session_ids),),
            )
            return {session_id for (session_id,) in await cursor.fetchall()}
