"""Turns credentials into a caller."""

from datetime import datetime

import structlog

from nimbus_server.accounts import signatures
from nimbus_server.accounts.api_keys import SecretBox, is_well_formed
from nimbus_server.accounts.caller import Machine, Person
from nimbus_server.accounts.signatures import SignedRequest
from nimbus_server.accounts.store import AccountStore
from nimbus_server.accounts.tokens import TokenKind, Tokens
from nimbus_server.errors import NimbusError, Reason

log = structlog.get_logger(__name__)


class Authenticator:
    """Checks tokens and signatures against the accounts kept."""

    def __init__(self, store: AccountStore, tokens: Tokens, secrets: SecretBox) -> None:
        self._store = store
        self._tokens = tokens
        self._secrets = secrets

    async def person(self, token: str, kind: TokenKind) -> Person:
        """The user whom the token speaks for.

        Raises NimbusError with TOKEN_INVALID, TOKEN_EXPIRED or SESSION_ENDED.
        """
        claims = self._tokens.read(token, kind)
        if not await self._store.session_is_open(claims.session_id):
            raise session_ended()
        return Person(claims.user_id, claims.session_id, claims.token_id)

    async def machine(self, request: SignedRequest, now: datetime) -> Machine:
        """The project's key that signed the request.

        Raises NimbusError with SIGNATURE_STALE, API_KEY_UNKNOWN or SIGNATURE_MISMATCH.
        """
        at = signatures.signed_at(request, now)
        key = await self._store.api_key(request.key_id) if is_well_formed(request.key_id) else None
        secret = self._secrets.open(key.secret_encrypted) if key else None
        if key and secret is None:
            log.error("no key in NIMBUS_SECRET_KEYS opens this API secret", api_key_id=request.key_id)
        if key is None or secret is None:
            raise NimbusError(Reason.API_KEY_UNKNOWN, "There is no such API key. It may be mistyped, or rotated away.")
        signatures.verify(request, secret)
        return Machine(key.project_id, request.key_id, at, signatures.signature_of(request, secret))


def session_ended() -> NimbusError:
    """The session was logged out, or the refresh token is spent."""
    return NimbusError(Reason.SESSION_ENDED, "This session has ended, or its refresh token is spent. Log in again.")
