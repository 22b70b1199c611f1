"""A token opens what it is for, while it is good, and nothing else."""

import time
from collections.abc import Callable

import jwt
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
