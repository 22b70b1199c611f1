"""JSON Web Tokens: access and refresh tokens of a person's session, and tokens that open streams."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import jwt

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.settings import Settings

ISSUER = "nimbus"
AUDIENCE = "nimbus-api"


class TokenKind(StrEnum):
    """What a token is for; carried in its `typ` claim, so that one kind can't stand in for the other."""

    ACCESS = "access"
    REFRESH = "refresh"
    STREAM = "stream"


# How to come by one of each kind.
GETTING = {
    TokenKind.ACCESS: "This call takes an access token: refresh yours, or log in.",
    TokenKind.REFRESH: "This call takes a refresh token: log in to get one.",
    TokenKind.STREAM: "`token` takes one of POST /v1/projects/{project_id}/stream-token (CreateStreamToken).",
}


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """Who a token speaks for: the user, the session, and the id of the token itself, which ends at `expires_at`."""

    user_id: UUID
    session_id: UUID
    token_id: UUID
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class StreamClaims:
    """Who opens streams of a project: a person in a session, or else one of the project's keys."""

    project_id: UUID
    user_id: UUID | None
    session_id: UUID | None
    key_id: str | None


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The tokens of a session; `refresh_token_id` is the one to remember as good."""

    access_token: str
    refresh_token: str
    refresh_token_id: UUID
    expires_in_seconds: int


class Tokens:
    """Issues and reads tokens. The algorithm is fixed by the settings, never taken from a token (RFC 8725)."""

    def __init__(self, settings: Settings) -> None:
        if settings.jwt_secret is None:
            raise ValueError("tokens need settings.jwt_secret")
        self._secret = settings.jwt_secret.get_secret_value()
        self._algorithm = settings.jwt_algorithm
        self.access_ttl_seconds = settings.jwt_access_ttl_seconds
        self.refresh_ttl_seconds = settings.jwt_refresh_ttl_seconds

    def issue(self, user_id: UUID, session_id: UUID) -> TokenPair:
        """A fresh pair for a session."""
        refresh_token_id = uuid4()
        subject, session = str(user_id), {"sid": str(session_id)}
        return TokenPair(
            self._encode(TokenKind.ACCESS, subject, uuid4(), self.access_ttl_seconds, session),
            self._encode(TokenKind.REFRESH, subject, refresh_token_id, self.refresh_ttl_seconds, session),
            refresh_token_id,
            self.access_ttl_seconds,
        )

    def read(self, token: str, kind: TokenKind) -> TokenClaims:
        """The claims of a valid token of this kind.

        Raises NimbusError with TOKEN_EXPIRED or TOKEN_INVALID.
        """
        try:
            claims = self._decode(token, kind, "sid")
            expires_at = datetime.fromtimestamp(claims["exp"], UTC)
            return TokenClaims(UUID(claims["sub"]), UUID(claims["sid"]), UUID(claims["jti"]), expires_at)
        except (ValueError, TypeError, AttributeError):
            raise _invalid() from None

    def issue_stream(self, who: StreamClaims, ttl_seconds: int) -> str:
        """A token that opens streams."""
        person = {"sid": str(who.session_id)} if who.session_id else {}
        subject = who.key_id or str(who.user_id)
        return self._encode(TokenKind.STREAM, subject, uuid4(), ttl_seconds, {**person, "prj": str(who.project_id)})

    def read_stream(self, token: str) -> StreamClaims:
        """The claims of a valid token that opens streams. Raises what `read` does."""
        try:
            claims = self._decode(token, TokenKind.STREAM, "prj")
            project = UUID(claims["prj"])
            if "sid" not in claims:
                return StreamClaims(project, None, None, str(claims["sub"]))
            return StreamClaims(project, UUID(claims["sub"]), UUID(claims["sid"]), None)
        except (ValueError, TypeError, AttributeError):
            raise _invalid() from None

    def _decode(self, token: str, kind: TokenKind, *also_required: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[self._algorithm],
                audience=AUDIENCE,
                issuer=ISSUER,
                # `iat` may lie ahead where another host's clock does.
                options={
                    "require": ["exp", "iat", "iss", "aud", "sub", "jti", "typ"],
                    "verify_iat": False,
                },
            )
        except jwt.ExpiredSignatureError:
            raise token_expired(kind) from None
        except jwt.InvalidTokenError:
            raise _invalid() from None
        if claims["typ"] != kind:
            raise NimbusError(Reason.TOKEN_INVALID, f"This is another kind of token. {GETTING[kind]}")
        if not claims.keys() >= set(also_required):
            raise _invalid()
        return claims

    def _encode(self, kind: TokenKind, subject: str, token_id: UUID, ttl_seconds: int, others: dict[str, str]) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "jti": str(token_id),
            "typ": kind.value,
            "iat": now,
            "exp": now + ttl_seconds,
            **others,
        }
        return jwt.encode(claims, self._secret, algorithm=self._algorithm)


def token_expired(kind: TokenKind = TokenKind.ACCESS) -> NimbusError:
    """A token's time is over."""
    return NimbusError(Reason.TOKEN_EXPIRED, f"The token has expired. {GETTING[kind]}")


def _invalid() -> NimbusError:
    return NimbusError(Reason.TOKEN_INVALID, "The token is not one of this server's. Log in again.")
