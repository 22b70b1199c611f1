"""A stream ends when the right to it does, with the reason; and for no other cause."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from storage import append, new_event, new_project, new_user, opened, settings_for
from streaming import running, shape, until

from nimbus_server.accounts.api_keys import new_api_key
from nimbus_server.accounts.caller import Caller, Machine, Person
from nimbus_server.accounts.store import AccountStore
from nimbus_server.clock import now
from nimbus_server.consumers.store import ConsumerStore
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.projects.store import ProjectStore
from nimbus_server.stream import rights as rights_module
from nimbus_server.stream.hub import Hub, Start
from nimbus_server.stream.rights import Rights
from nimbus_server.stream.store import LogReader
from nimbus_server.stream.streams import Streams, Wanted


@dataclass
class Scene:
    """A project with a member in a session and a key, and the streams of a worker."""

    database: Database
    projects: ProjectStore
    accounts: AccountStore
    rights: Rights
    hub: Hub
    streams: Streams
    owner: UUID
    session: UUID
    project: UUID
    key_id: str

    def person(self, **others: object) -> Person:
        return Person(self.owner, self.session, uuid4(), **others)  # type: ignore[arg-type]

    def machine(self) -> Machine:
        return Machine(self.project, self.key_id, now(), "0" * 64)

    async def sql(self, statement: str) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(statement.encode(), {"project": self.project, "owner": self.owner})


@pytest.fixture
async def scene(dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(rights_module, "CHECK_SECONDS", 0.05)
    async with opened(Database(settings_for(dsn))) as database:
        projects, accounts, consumers = ProjectStore(database), AccountStore(database), ConsumerStore(database)
        hub, rights = Hub(LogReader(database)), Rights(accounts, projects, consumers, now)
        owner = await new_user(database)
        project, session = await new_project(database, owner), uuid4()
        await accounts.start_session(session, owner, uuid4(), 3600)
        key_id = (await projects.get(owner, project)).api_key_id
        async with running(hub, rights):
            streams = Streams(hub, rights, consumers)
            yield Scene(database, projects, accounts, rights, hub, streams, owner, session, project, key_id)
        assert (rights._watched, hub._channels, hub._count) == (set(), {}, 0)


class Stream:
    """A stream that is read to its end; `error` is why it ended."""

    def __init__(self, scene: Scene, caller: Caller, project: UUID | None = None) -> None:
        self.messages: list[bytes] = []
        self.error: NimbusError | None = None
        wanted = Wanted(project or scene.project, Start(), shape(), 1)
        self.task = asyncio.create_task(self._read(scene, wanted, caller))

    async def _read(self, scene: Scene, wanted: Wanted, caller: Caller) -> None:
        try:
            async with scene.streams.open(wanted, caller) as subscription:
                async for message in subscription.messages():
                    self.messages.append(message)
        except NimbusError as error:
            self.error = error

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def rotate(scene: Scene) -> None:
    await scene.projects.rotate_key(scene.owner, scene.project, new_api_key().id, b"sealed", 0)


async def log_out(scene: Scene) -> None:
    await scene.accounts.end_session(scene.session)


async def remove_member(scene: Scene) -> None:
    await scene.sql("DELETE FROM members WHERE project_id = %(project)s AND user_id = %(owner)s")


async def delete_project(scene: Scene) -> None:
    await scene.projects.delete(scene.owner, scene.project)


async def delete_user(scene: Scene) -> None:
    await scene.sql("DELETE FROM users WHERE id = %(owner)s")


PERSON, MACHINE = Scene.person, Scene.machine


@pytest.mark.parametrize(
    ("caller", "withdraw", "reason"),
    [
        (MACHINE, rotate, Reason.API_KEY_UNKNOWN),
        (MACHINE, delete_project, Reason.PROJECT_NOT_FOUND),
        (PERSON, delete_project, Reason.PROJECT_NOT_FOUND),
        (PERSON, remove_member, Reason.PROJECT_NOT_FOUND),
        (PERSON, log_out, Reason.SESSION_ENDED),
        (PERSON, delete_user, Reason.SESSION_ENDED),
    ],
)
async def test_a_right_that_is_withdrawn_ends_its_streams_and_no_others(
    scene: Scene, caller: Callable[[Scene], Caller], withdraw: Callable[[Scene], Awaitable[None]], reason: Reason
) -> None:
    stranger = await new_user(scene.database)
    session, project = uuid4(), await new_project(scene.database, stranger)
    await scene.accounts.start_session(session, stranger, uuid4(), 3600)
    streams = [Stream(scene, caller(scene)) for _ in range(3)]
    other = Stream(scene, Person(stranger, session, uuid4()), project)
    await until(lambda: all(one.messages for one in (*streams, other)))
    await withdraw(scene)
    await until(lambda: all(one.task.done() for one in streams))
    assert [one.error and one.error.reason for one in streams] == [reason] * 3
    # A beat later, and so several checks.
    heard = len(other.messages)
    await until(lambda: len(other.messages) > heard + 1)
    assert other.error is None
    await other.close()


async def test_a_token_ends_its_streams_when_it_expires_and_a_key_in_its_grace_does_not(scene: Scene) -> None:
    brief = Stream(scene, scene.person(expires_at=now() + timedelta(seconds=0.4)))
    longer = Stream(scene, scene.person(expires_at=now() + timedelta(seconds=3600)))
    graced = Stream(scene, scene.machine())
    await until(lambda: brief.messages and longer.messages and graced.messages)
    await scene.projects.rotate_key(scene.owner, scene.project, new_api_key().id, b"sealed", 3600)
    await until(brief.task.done)
    assert brief.error
    assert brief.error.reason is Reason.TOKEN_EXPIRED
    assert not longer.task.done()
    assert not graced.task.done()
    await longer.close()
    await graced.close()


async def test_a_database_that_is_away_ends_nothing(scene: Scene, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Stream(scene, scene.person())
    await until(lambda: one.messages)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for _ in range(20):
            await connection.execute(cut, (connection.info.backend_pid,))
            await asyncio.sleep(0)
    heard = len(one.messages)
    await append(EventLog(scene.database, Partitions(scene.database)), scene.project, [new_event()])
    await until(lambda: any(b"[1,[1]]" in message for message in one.messages[heard - 1 :]))
    assert one.error is None
    await log_out(scene)
    await until(one.task.done)
