"""Projects: what is not yours is not there, and a key that was rotated away is dead."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from storage import new_project, new_user, opened, settings_for

from nimbus_server.accounts.api_keys import new_api_key
from nimbus_server.accounts.caller import Machine, Person
from nimbus_server.accounts.store import AccountStore
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.postgres.database import Database
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.projects.store import ProjectStore

ON_A_PROJECT: dict[str, Callable[[ProjectStore, UUID, UUID], Awaitable[object]]] = {
    "get": lambda store, user, project: store.get(user, project),
    "update": lambda store, user, project: store.update(user, project, "mine now", "Asia/Tehran"),
    "delete": lambda store, user, project: store.delete(user, project),
    "rotate_key": lambda store, user, project: store.rotate_key(user, project, new_api_key().id, b"sealed", 0),
}


def not_found(error: NimbusError) -> bool:
    return error.reason is Reason.PROJECT_NOT_FOUND


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


async def living_keys(database: Database, *key_ids: str) -> list[bool]:
    return [await AccountStore(database).api_key(key_id) is not None for key_id in key_ids]


async def rotated(database: Database, owner: UUID, project: UUID, grace_seconds: int = 0) -> str:
    key = new_api_key()
    after = await ProjectStore(database).rotate_key(owner, project, key.id, b"sealed", grace_seconds)
    assert after.api_key_id == key.id
    return key.id


def test_the_methods_on_a_project_are_these_and_is_member() -> None:
    named = {
        name
        for name, method in inspect.getmembers(ProjectStore, inspect.isfunction)
        if {"user_id", "project_id"} <= set(inspect.signature(method).parameters)
    }
    assert named == {*ON_A_PROJECT, "is_member"}


@pytest.mark.parametrize("method", ON_A_PROJECT)
async def test_to_a_stranger_a_project_is_not_there_and_nothing_happens_to_it(database: Database, method: str) -> None:
    owner, stranger, store = await new_user(database), await new_user(database), ProjectStore(database)
    project, strangers_own = await new_project(database, owner), await new_project(database, stranger)
    before = await store.get(owner, project)
    for someone, something in ((stranger, project), (uuid4(), project), (owner, strangers_own), (owner, uuid4())):
        with pytest.raises(NimbusError, check=not_found):
            await ON_A_PROJECT[method](store, someone, something)
    assert await store.get(owner, project) == before
    assert await living_keys(database, before.api_key_id) == [True]
    assert (await store.get(stranger, strangers_own)).id == strangers_own


async def test_a_list_shows_ones_own_projects_and_no_others_page_by_page(database: Database) -> None:
    owner, stranger, store = await new_user(database), await new_user(database), ProjectStore(database)
    mine = [await new_project(database, owner) for _ in range(5)]
    others = await new_project(database, stranger)
    pages, after = [], None
    while page := await store.page(owner, 2, after):
        pages.append([project.id for project in page])
        after = (page[-1].created_at, page[-1].id)
    assert pages == [mine[:2], mine[2:4], mine[4:]]
    assert [project.id for project in await store.page(stranger, 10, None)] == [others]


@pytest.mark.parametrize("at", [datetime.fromisoformat("0001-01-01"), datetime.max.replace(tzinfo=UTC)])
async def test_a_list_goes_on_from_any_moment_that_a_page_token_can_hold(database: Database, at: datetime) -> None:
    owner = await new_user(database)
    project = await new_project(database, owner)
    found = await ProjectStore(database).page(owner, 10, (at, UUID(int=0)))
    assert [p.id for p in found] == ([project] if at.year == 1 else [])


async def test_only_members_and_the_projects_own_key_have_access(database: Database) -> None:
    owner, access = await new_user(database), ProjectAccess(ProjectStore(database))
    project, other = await new_project(database, owner), await new_project(database)
    await access.require(Person(owner, uuid4(), uuid4()), project)
    with pytest.raises(NimbusError, check=not_found):
        await access.require(Person(owner, uuid4(), uuid4()), other)
    machine = Machine(project, "nbk_1", datetime.now(UTC), "ab" * 32)
    await access.require(machine, project)
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.PROJECT_MISMATCH):
        await access.require(machine, other)


async def test_rotation_kills_the_old_key_at_once(database: Database) -> None:
    owner = await new_user(database)
    project, other = await new_project(database, owner), await new_project(database, owner)
    first = (await ProjectStore(database).get(owner, project)).api_key_id
    others_key = (await ProjectStore(database).get(owner, other)).api_key_id
    second = await rotated(database, owner, project)
    assert await living_keys(database, first, second, others_key) == [False, True, True]


async def test_with_grace_the_old_keys_live_on_until_a_rotation_without(database: Database) -> None:
    owner = await new_user(database)
    project = await new_project(database, owner)
    first = (await ProjectStore(database).get(owner, project)).api_key_id
    second = await rotated(database, owner, project, grace_seconds=3600)
    assert await living_keys(database, first, second) == [True, True]
    third = await rotated(database, owner, project, grace_seconds=3600)
    assert await living_keys(database, first, second, third) == [True, True, True]
    fourth = await rotated(database, owner, project)
    assert await living_keys(database, first, second, third, fourth) == [False, False, False, True]


async def test_after_its_grace_the_old_key_is_dead(database: Database) -> None:
    owner = await new_user(database)
    project = await new_project(database, owner)
    first = (await ProjectStore(database).get(owner, project)).api_key_id
    await rotated(database, owner, project, grace_seconds=3600)
    async with database.transaction() as connection:
        await connection.execute("UPDATE api_keys SET expires_at = now() - interval '1 ms' WHERE id = %s", (first,))
    assert await living_keys(database, first) == [False]


async def test_of_rotations_at_once_one_key_is_in_force_in_the_end(database: Database) -> None:
    owner = await new_user(database)
    project = await new_project(database, owner)
    keys = await asyncio.gather(*(rotated(database, owner, project) for _ in range(8)))
    in_force = (await ProjectStore(database).get(owner, project)).api_key_id
    assert await living_keys(database, *keys) == [key == in_force for key in keys]


async def test_a_deleted_projects_key_is_dead(database: Database) -> None:
    owner, store = await new_user(database), ProjectStore(database)
    project = await new_project(database, owner)
    key = (await store.get(owner, project)).api_key_id
    await store.delete(owner, project)
    assert await living_keys(database, key) == [False]


async def test_an_update_changes_what_it_names_and_nothing_else(database: Database) -> None:
    owner, store = await new_user(database), ProjectStore(database)
    project = await new_project(database, owner)
    assert await store.timezone(project) == "UTC"
    moved = await store.update(owner, project, None, "Europe/Berlin")
    assert (moved.name, moved.timezone) == ("a project", "Europe/Berlin")
    renamed = await store.update(owner, project, "another", None)
    assert (renamed.name, renamed.timezone) == ("another", "Europe/Berlin")
    assert await store.timezone(project) == "Europe/Berlin"
    with pytest.raises(NimbusError, check=not_found):
        await store.timezone(uuid4())
