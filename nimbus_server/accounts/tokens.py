"""JSON Web Tokens of people: access and refresh tokens of a session."""

import time
from dataclasses import dataclass
from enum import StrEnum
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


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """Who a token speaks for: the user, the session, and the id of the token itself."""

    user_id: UUID
    session_id: UUID
    token_id: UUID


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
        return TokenPair(
            self._encode(TokenKind.ACCESS, user_id, session_id, uuid4(), self.access_ttl_seconds),
            self._encode(TokenKind.REFRESH, user_id, session_id, refresh_token_id, self.refresh_ttl_seconds),
            refresh_token_id,
            self.access_ttl_seconds,
        )

    def read(self, token: str, kind: TokenKind) -> TokenClaims:
        """The claims of a valid token of this kind.

        Raises NimbusError with TOKEN_EXPIRED or TOKEN_INVALID.
        """
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[self._algorithm],
                audience=AUDIENCE,
                issuer=ISSUER,
                # `iat` may lie ahead where another host's clock does.
                options={
                    "require": ["exp", "iat", "iss", "aud", "sub", "sid", "jti", "typ"],
                    "verify_iat": False,
                },
            )
            if claims["typ"] != kind:
                raise NimbusError(Reason.TOKEN_INVALID, f"This call takes the {kind} token, and this is another kind.")
            return TokenClaims(UUID(claims["sub"]), UUID(claims["sid"]), UUID(claims["jti"]))
        except jwt.ExpiredSignatureError:
            raise NimbusError(Reason.TOKEN_EXPIRED, "The token has expired. Refresh it, or log in again.") from None
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError):
            raise NimbusError(Reason.TOKEN_INVALID, "The token is not one of this server's. Log in again.") from None

    def _encode(self, kind: TokenKind, user_id: UUID, session_id: UUID, token_id: UUID, ttl_seconds: int) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": str(token_id),
            "typ": kind.value,
            "iat": now,
            "exp": now + ttl_seconds,
        }
        return jwt.encode(claims, self._secret, algorithm=self._algorithm)
