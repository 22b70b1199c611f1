"""A token opens what it is for, while it is good, and nothing else."""

import base64
import hashlib
import time
import uuid
from collections.abc import Callable

import bcrypt
import jwt
import psycopg
import pytest
from conftest import Account, Stack
from credentials import bearer, person
from error_recipes import World, minted, tokens
from guarded import GUARDED, WAYS, failures, fields_of
from surface import RPCS
from transports import Transport, over_rest

from nimbus_server.errors import Reason


def _forged(world: World) -> list[str]:
    good = tokens(world)
    without_kind = {name: value for name, value in good.items() if name != "typ"}
    return [
        jwt.encode(good, None, algorithm="none"),
        jwt.encode(good, "a secret of 32 bytes that is not ours", algorithm="HS256"),
        minted(world.stack, without_kind),
        minted(world.stack, {**good, "aud": "another"}),
        minted(world.stack, {**good, "iss": "another"}),
        minted(world.stack, {**good, "sub": "x"}),
        minted(world.stack, {name: value for name, value in good.items() if name != "exp"}),
        world.account.access_token[:-2],
        world.account.refresh_token,
    ]


TOKENS: dict[str, tuple[Callable[[World], list[str]], Reason]] = {
    "forged": (_forged, Reason.TOKEN_INVALID),
    "expired": (lambda world: [minted(world.stack, tokens(world, exp=int(time.time()) - 1))], Reason.TOKEN_EXPIRED),
    "of no session": (
        lambda world: [minted(world.stack, tokens(world, sid="00000000-0000-4000-8000-000000000000"))],
        Reason.SESSION_ENDED,
    ),
}


@pytest.mark.parametrize("transport", WAYS)
@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_that_is_not_good_opens_no_rpc(stack: Stack, account: Account, kind: str, transport: Transport) -> None:
    make, reason = TOKENS[kind]
    for token in make(World(stack, account)):
        for rpc in GUARDED.values():
            for failure in failures(transport, stack, rpc, fields_of(rpc, account), bearer(token)):
                assert failure.reason == reason, (rpc.name, token)
    assert over_rest(stack, RPCS["AuthService.GetMe"], {}, person(account)).failure is None


@pytest.mark.parametrize("transport", WAYS)
def test_after_logout_no_token_of_the_session_opens_anything(
    stack: Stack, account: Account, transport: Transport
) -> None:
    login = {"email": account.email, "password": account.password}
    elsewhere = over_rest(stack, RPCS["AuthService.Login"], login).response
    assert transport(stack, RPCS["AuthService.Logout"], {}, person(account)).failure is None
    for rpc in GUARDED.values():
        for failure in failures(transport, stack, rpc, fields_of(rpc, account), person(account)):
            assert failure.reason == Reason.SESSION_ENDED, rpc.name
    (failure,) = failures(transport, stack, RPCS["AuthService.Refresh"], {}, bearer(account.refresh_token))
    assert failure.reason == Reason.SESSION_ENDED
    assert transport(stack, RPCS["AuthService.GetMe"], {}, bearer(elsewhere.access_token)).failure is None


def test_a_refresh_token_is_good_once_and_an_access_token_never(stack: Stack, account: Account) -> None:
    refresh = RPCS["AuthService.Refresh"]
    assert failures(over_rest, stack, refresh, {}, person(account))[0].reason == Reason.TOKEN_INVALID
    fresh = over_rest(stack, refresh, {}, bearer(account.refresh_token)).response
    assert failures(over_rest, stack, refresh, {}, bearer(account.refresh_token))[0].reason == Reason.SESSION_ENDED
    assert over_rest(stack, RPCS["AuthService.GetMe"], {}, bearer(fresh.access_token)).response.email == account.email
    assert over_rest(stack, refresh, {}, bearer(fresh.refresh_token)).failure is None


def test_a_password_logs_in_from_every_keyboard_and_so_does_one_that_was_kept_as_typed(stack: Stack) -> None:
    composed, decomposed = "p\u00e4ssw\u00f6rd \u00e9", "pa\u0308sswo\u0308rd e\u0301"
    login, register = RPCS["AuthService.Login"], RPCS["AuthService.Register"]
    for typed, typed_again in ((composed, decomposed), (decomposed, composed)):
        account = {"email": f"{uuid.uuid4().hex}@example.com", "password": typed}
        assert over_rest(stack, register, account).failure is None
        again = account | {"password": typed_again}
        assert over_rest(stack, login, again).failure is None
        # As an earlier version has hashed it: the bytes that were typed.
        old = bcrypt.hashpw(base64.b64encode(hashlib.sha256(typed.encode()).digest()), bcrypt.gensalt(4)).decode()
        with psycopg.connect(stack.dsn()) as connection:
            connection.execute("UPDATE users SET password_hash = %s WHERE email = %s", (old, account["email"]))
        for known in (account, again, account):
            assert over_rest(stack, login, known).failure is None
        assert over_rest(stack, login, account | {"password": typed + "x"}).failure is not None


def test_two_mailboxes_are_two_accounts(stack: Stack) -> None:
    register, login = RPCS["AuthService.Register"], RPCS["AuthService.Login"]
    start = uuid.uuid4().hex
    for address in (f"\u0130{start}@example.com", f"i{start}@example.com"):
        assert over_rest(stack, register, {"email": address, "password": f"of {address}"}).failure is None
        assert over_rest(stack, login, {"email": address, "password": f"of {address}"}).failure is None
    in_capitals = {"email": f"I{start}@EXAMPLE.com", "password": "a password"}
    failure = over_rest(stack, register, in_capitals).failure
    assert failure is not None
    assert failure.reason == Reason.EMAIL_TAKEN
