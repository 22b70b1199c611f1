"""Tokens: only this server's own, of the right kind and in time, get in; all else has its reason and no other error."""

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_server.accounts.tokens import TokenClaims, TokenKind, Tokens
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.settings import load

SECRET = "unit-test-" * 7
USER, SESSION, TOKEN = uuid4(), uuid4(), uuid4()
TOKENS = Tokens(load(jwt_secret=SECRET))
CLAIMS = {
    "iss": "nimbus",
    "aud": "nimbus-api",
    "sub": str(USER),
    "sid": str(SESSION),
    "jti": str(TOKEN),
    "typ": "access",
}


def forged(key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token such as this server would make, except for what is given; None leaves a claim out."""
    now = int(time.time())
    content = {**CLAIMS, "iat": now, "exp": now + 60, **claims}
    return jwt.encode({name: value for name, value in content.items() if value is not None}, key, algorithm=algorithm)


def invalid(error: NimbusError) -> bool:
    return error.reason is Reason.TOKEN_INVALID


def expired(error: NimbusError) -> bool:
    return error.reason is Reason.TOKEN_EXPIRED


def test_a_token_of_each_kind_says_who_it_speaks_for() -> None:
    pair = TOKENS.issue(USER, SESSION)
    access = TOKENS.read(pair.access_token, TokenKind.ACCESS)
    refresh = TOKENS.read(pair.refresh_token, TokenKind.REFRESH)
    assert (access.user_id, access.session_id) == (refresh.user_id, refresh.session_id) == (USER, SESSION)
    assert refresh.token_id == pair.refresh_token_id != access.token_id


def test_the_forgery_of_these_tests_would_get_in_if_nothing_were_wrong_with_it() -> None:
    at = int(time.time()) + 90
    assert TOKENS.read(forged(exp=at), TokenKind.ACCESS) == TokenClaims(
        USER, SESSION, TOKEN, datetime.fromtimestamp(at, UTC)
    )


def test_one_kind_does_not_stand_in_for_the_other() -> None:
    pair = TOKENS.issue(USER, SESSION)
    with pytest.raises(NimbusError, check=invalid):
        TOKENS.read(pair.refresh_token, TokenKind.ACCESS)
    with pytest.raises(NimbusError, check=invalid):
        TOKENS.read(pair.access_token, TokenKind.REFRESH)


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "someone-elses-" * 5},
        {"key": "", "algorithm": "none"},
        {"algorithm": "HS512"},
        {"algorithm": "HS384"},
        {"iss": "numbus"},
        {"aud": "other-api"},
        {"sub": "root"},
        {"sub": "1"},
        {"sid": "../.."},
        {"sid": 7},
        {"jti": "x"},
        {"typ": "ACCESS"},
        {"typ": ["access"]},
        {"nbf": 4_000_000_000},
        {"exp": "never"},
        *({name: None} for name in (*CLAIMS, "iat", "exp")),
    ],
    ids=str,
)
def test_a_token_with_one_thing_wrong_is_invalid(wrong: dict[str, Any]) -> None:
    with pytest.raises(NimbusError, check=invalid):
        TOKENS.read(forged(**wrong), TokenKind.ACCESS)


def test_an_expired_token_says_so() -> None:
    with pytest.raises(NimbusError, check=expired):
        TOKENS.read(forged(exp=int(time.time()) - 1), TokenKind.ACCESS)


def test_an_expired_token_of_someone_else_is_only_invalid() -> None:
    with pytest.raises(NimbusError, check=invalid):
        TOKENS.read(forged(key="someone-elses-" * 5, exp=1), TokenKind.ACCESS)


def test_the_lives_of_tokens_are_those_of_the_settings() -> None:
    tokens = Tokens(load(jwt_secret=SECRET, jwt_access_ttl_seconds=7, jwt_refresh_ttl_seconds=9))
    pair = tokens.issue(USER, SESSION)
    for token, seconds in ((pair.access_token, 7), (pair.refresh_token, 9)):
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == seconds
    assert pair.expires_in_seconds == 7


def test_another_configured_algorithm_is_the_only_one_taken() -> None:
    tokens = Tokens(load(jwt_secret=SECRET, jwt_algorithm="HS512"))
    assert tokens.read(forged(algorithm="HS512"), TokenKind.ACCESS).user_id == USER
    with pytest.raises(NimbusError, check=invalid):
        tokens.read(forged(algorithm="HS256"), TokenKind.ACCESS)


@pytest.mark.parametrize(
    "header", [b"[" * 50_000, b'{"alg":' * 20_000, b"null", b"1", b'{"alg":[]}', b'{"alg":"HS256","crit":["x"]}']
)
def test_an_odd_header_is_invalid(header: bytes) -> None:
    token = f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.{forged().split('.', 1)[1]}"
    with pytest.raises(NimbusError, check=invalid):
        TOKENS.read(token, TokenKind.ACCESS)


@given(
    st.text(st.characters(codec=None)) | st.lists(st.text("aA0_-=.", max_size=6), min_size=3, max_size=3).map(".".join)
)
def test_garbage_is_invalid(token: str) -> None:
    with pytest.raises(NimbusError, check=invalid):
        TOKENS.read(token, TokenKind.ACCESS)


@given(st.dictionaries(st.sampled_from([*CLAIMS, "alg", "exp"]), st.integers() | st.text() | st.none(), max_size=3))
def test_changed_claims_under_the_old_signature_are_invalid(changes: dict[str, Any]) -> None:
    header, body, signature = forged().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "==")) | {"sub": str(uuid4())} | changes
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(NimbusError, check=invalid):
        TOKENS.read(f"{header}.{body}.{signature}", TokenKind.ACCESS)
