"""Accounts: who gets in, with which token or signature, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from storage import NOW, new_user, opened, settings_for

from nimbus_server.accounts.api_keys import ApiKey, SecretBox, new_api_key
from nimbus_server.accounts.authenticator import Authenticator
from nimbus_server.accounts.signatures import SignedRequest, signature_of
from nimbus_server.accounts.store import AccountStore
from nimbus_server.accounts.tokens import TokenKind, Tokens
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.postgres.database import Database
from nimbus_server.projects.store import ProjectStore

# In the time of any event loop.
LATER = 1e12


@dataclass(frozen=True)
class World:
    """What decides who gets in, over one database."""

    database: Database
    accounts: AccountStore
    tokens: Tokens
    box: SecretBox
    authenticator: Authenticator


@pytest.fixture
async def world(dsn: str) -> AsyncIterator[World]:
    settings = settings_for(dsn).model_copy(
        update={
            "jwt_secret": SecretStr("a test's secret " * 4),
            "secret_keys": (SecretStr(Fernet.generate_key().decode()),),
        }
    )
    async with opened(Database(settings)) as database:
        accounts, tokens, box = AccountStore(database), Tokens(settings), SecretBox(settings)
        yield World(database, accounts, tokens, box, Authenticator(accounts, tokens, box))


def of(reason: Reason) -> pytest.RaisesExc[NimbusError]:
    return pytest.raises(NimbusError, check=lambda e: e.reason is reason)


async def new_machine(world: World) -> tuple[UUID, UUID, ApiKey]:
    owner, project, key = await new_user(world.database), uuid4(), new_api_key()
    await ProjectStore(world.database).create(project, "p", owner, key.id, world.box.seal(key.secret))
    return owner, project, key


def request_signed_by(key: ApiKey) -> SignedRequest:
    request = SignedRequest(key.id, f"{NOW.timestamp():.3f}", "", "POST", "/v1/events", b'{"events":[]}')
    return replace(request, signature=signature_of(request, key.secret))


async def test_an_address_has_one_user_in_whatever_case(world: World) -> None:
    user = uuid4()
    await world.accounts.add_user(user, "Ada@Example.com", "hash")
    with of(Reason.EMAIL_TAKEN):
        await world.accounts.add_user(uuid4(), "aDA@example.COM", "hash")
    found = await world.accounts.user_by_email("ada@example.com")
    assert found is not None
    assert (found.id, found.email) == (user, "Ada@Example.com")
    assert await world.accounts.user_by_email("ada@example.co") is None


@pytest.mark.parametrize(
    ("one", "other"), [("\u0130x@b.c", "ix@b.c"), ("\u00c9@b.c", "\u00e9@b.c"), ("\u00df@b.c", "ss@b.c")]
)
async def test_addresses_that_differ_in_more_than_the_case_of_ascii_are_two_users(
    world: World, one: str, other: str
) -> None:
    ids = {one: uuid4(), other: uuid4()}
    for address, user in ids.items():
        await world.accounts.add_user(user, address, "hash")
    for address, user in ids.items():
        found = await world.accounts.user_by_email(address)
        assert found is not None
        assert found.id == user


async def test_a_password_hash_is_replaced_unless_it_has_changed(world: World) -> None:
    user = uuid4()
    await world.accounts.add_user(user, "a@b.c", "old")
    for old, new, expected in (("older", "other", "old"), ("old", "new", "new")):
        await world.accounts.set_password_hash(user, old, new)
        found = await world.accounts.user(user)
        assert found is not None
        assert found.password_hash == expected


async def test_of_registrations_at_once_for_an_address_one_wins(world: World) -> None:
    ids = [uuid4() for _ in range(8)]
    results = await asyncio.gather(*(world.accounts.add_user(i, "a@b.c", "hash") for i in ids), return_exceptions=True)
    assert [r.reason for r in results if isinstance(r, NimbusError)] == [Reason.EMAIL_TAKEN] * 7
    found = await world.accounts.user_by_email("a@b.c")
    assert found is not None
    assert found.id == ids[results.index(None)]


async def test_a_refresh_token_used_ten_times_at_once_is_good_once(world: World) -> None:
    user, session = await new_user(world.database), uuid4()
    first = world.tokens.issue(user, session)
    await world.accounts.start_session(session, user, first.refresh_token_id, 3600)
    fresh = [world.tokens.issue(user, session) for _ in range(10)]
    spent = first.refresh_token_id
    turned = await asyncio.gather(
        *(world.accounts.rotate_session(session, spent, p.refresh_token_id, 3600) for p in fresh)
    )
    assert turned.count(True) == 1
    good = fresh[turned.index(True)].refresh_token_id
    assert not await world.accounts.rotate_session(session, spent, uuid4(), 3600)
    assert await world.accounts.rotate_session(session, good, uuid4(), 3600)


async def test_a_refresh_token_is_of_no_use_to_another_session(world: World) -> None:
    user, mine, other, good, others = await new_user(world.database), *(uuid4() for _ in range(4))
    await world.accounts.start_session(mine, user, good, 3600)
    await world.accounts.start_session(other, user, others, 3600)
    assert not await world.accounts.rotate_session(other, good, uuid4(), 3600)
    assert await world.accounts.rotate_session(mine, good, uuid4(), 3600)


async def test_logout_ends_the_session_for_both_its_tokens_and_no_other_session(world: World) -> None:
    user, session, other = await new_user(world.database), uuid4(), uuid4()
    pair, others = world.tokens.issue(user, session), world.tokens.issue(user, other)
    await world.accounts.start_session(session, user, pair.refresh_token_id, 3600)
    await world.accounts.start_session(other, user, others.refresh_token_id, 3600)
    assert (await world.authenticator.person(pair.access_token, TokenKind.ACCESS, LATER)).user_id == user

    for _ in range(2):
        await world.accounts.end_session(session)
    for token, kind in ((pair.access_token, TokenKind.ACCESS), (pair.refresh_token, TokenKind.REFRESH)):
        with of(Reason.SESSION_ENDED):
            await world.authenticator.person(token, kind, LATER)
    assert not await world.accounts.rotate_session(session, pair.refresh_token_id, uuid4(), 3600)
    assert (await world.authenticator.person(others.access_token, TokenKind.ACCESS, LATER)).session_id == other


async def test_a_token_of_a_session_that_never_was_does_not_get_in(world: World) -> None:
    pair = world.tokens.issue(await new_user(world.database), uuid4())
    with of(Reason.SESSION_ENDED):
        await world.authenticator.person(pair.access_token, TokenKind.ACCESS, LATER)


async def test_a_signed_request_is_its_projects(world: World) -> None:
    _, project, key = await new_machine(world)
    request = request_signed_by(key)
    machine = await world.authenticator.machine(replace(request, signature=request.signature.upper()), NOW, LATER)
    assert (machine.project_id, machine.key_id, machine.signed_at) == (project, key.id, NOW)
    assert machine.signature == request.signature, "in one spelling: identities are made of it"


async def test_a_wrong_signature_secret_or_key_has_its_reason(world: World) -> None:
    _, _, key = await new_machine(world)
    _, _, others = await new_machine(world)
    good = request_signed_by(key)
    for request, reason in (
        (replace(good, body=b"{}"), Reason.SIGNATURE_MISMATCH),
        (replace(good, key_id=others.id), Reason.SIGNATURE_MISMATCH),
        (replace(good, key_id=new_api_key().id), Reason.API_KEY_UNKNOWN),
        (replace(good, key_id=key.id[:-1]), Reason.API_KEY_UNKNOWN),
        (replace(good, key_id=key.secret), Reason.API_KEY_UNKNOWN),
        (replace(good, timestamp=str(NOW.timestamp() - 301)), Reason.SIGNATURE_STALE),
    ):
        with of(reason):
            await world.authenticator.machine(request, NOW, LATER)


async def test_a_rotated_key_signs_no_more(world: World) -> None:
    owner, project, old = await new_machine(world)
    new = new_api_key()
    await ProjectStore(world.database).rotate_key(owner, project, new.id, world.box.seal(new.secret), 0)
    assert (await world.authenticator.machine(request_signed_by(new), NOW, LATER)).project_id == project
    with of(Reason.API_KEY_UNKNOWN):
        await world.authenticator.machine(request_signed_by(old), NOW, LATER)


async def test_no_secret_is_stored_in_the_clear(world: World) -> None:
    _, _, key = await new_machine(world)
    async with world.database.transaction() as connection:
        rows = await (
            await connection.execute("SELECT row_to_json(k)::text, secret_encrypted FROM api_keys k")
        ).fetchall()
    assert len(rows) == 1
    assert key.id in rows[0][0]
    assert key.secret not in rows[0][0]
    assert key.secret.encode() not in rows[0][1]
