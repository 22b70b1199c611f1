"""Turns credentials into a caller."""

from datetime import datetime
from uuid import UUID, uuid4

import structlog
from cachetools import TTLCache

from nimbus_server import patience
from nimbus_server.accounts import signatures
from nimbus_server.accounts.api_keys import SecretBox, is_well_formed
from nimbus_server.accounts.caller import Caller, Machine, Person
from nimbus_server.accounts.signatures import SignedRequest
from nimbus_server.accounts.store import AccountStore
from nimbus_server.accounts.tokens import TokenKind, Tokens
from nimbus_server.errors import NimbusError, Reason, api_key_unknown

KEYS_REMEMBERED = 10_000
REMEMBERED_SECONDS = 60

log = structlog.get_logger(__name__)


class Authenticator:
    """Checks tokens and signatures against the accounts kept.

    Every method raises NimbusError with STORAGE_UNAVAILABLE where the database has not answered by `until`, in the
    event loop's time.
    """

    def __init__(self, store: AccountStore, tokens: Tokens, secrets: SecretBox) -> None:
        self._store = store
        self._tokens = tokens
        self._secrets = secrets
        self._remembered: TTLCache[str, tuple[UUID, str]] = TTLCache(KEYS_REMEMBERED, REMEMBERED_SECONDS)

    async def person(self, token: str, kind: TokenKind, until: float) -> Person:
        """The user whom the token speaks for.

        Raises NimbusError with TOKEN_INVALID, TOKEN_EXPIRED or SESSION_ENDED.
        """
        claims = self._tokens.read(token, kind)
        if not await patience.in_time(until, self._store.session_is_open(claims.session_id)):
            raise session_ended()
        return Person(claims.user_id, claims.session_id, claims.token_id, claims.expires_at)

    async def stream_opener(self, token: str, now: datetime, until: float) -> Caller:
        """Whoever a token of CreateStreamToken was made for, and for that project alone.

        Raises NimbusError with TOKEN_INVALID, TOKEN_EXPIRED, SESSION_ENDED or API_KEY_UNKNOWN.
        """
        claims = self._tokens.read_stream(token)
        if claims.key_id is not None:
            if await patience.in_time(until, self._store.api_key(claims.key_id)) is None:
                raise api_key_unknown()
            return Machine(claims.project_id, claims.key_id, now, signature="")
        if claims.user_id is None or claims.session_id is None:
            raise TypeError("a token that opens streams is a key's or a person's")
        if not await patience.in_time(until, self._store.session_is_open(claims.session_id)):
            raise session_ended()
        return Person(claims.user_id, claims.session_id, uuid4(), only_project=claims.project_id)

    async def machine(
        self, request: SignedRequest, now: datetime, until: float, *, key_is_checked_later: bool = False
    ) -> Machine:
        """The project's key that signed the request.

        A key is looked up for each request, so that a rotated one is dead at once in every worker; one that
        `is_checked_later`, in the transaction that its request leads to, may be remembered from an earlier request.
        Raises NimbusError with SIGNATURE_STALE, API_KEY_UNKNOWN or SIGNATURE_MISMATCH.
        """
        at = signatures.signed_at(request, now)
        remembered = self._remembered.get(request.key_id) if key_is_checked_later else None
        project_id, secret = remembered or await self._look_up(request.key_id, until)
        return Machine(project_id, request.key_id, at, signatures.verify(request, secret))

    async def _look_up(self, key_id: str, until: float) -> tuple[UUID, str]:
        key = await patience.in_time(until, self._store.api_key(key_id)) if is_well_formed(key_id) else None
        secret = self._secrets.open(key.secret_encrypted) if key else None
        if key and secret is None:
            log.error("no key in NIMBUS_SECRET_KEYS opens this API secret", api_key_id=key_id)
        if key is None or secret is None:
            self._remembered.pop(key_id, None)
            raise api_key_unknown()
        self._remembered[key_id] = key.project_id, secret
        return key.project_id, secret


def session_ended() -> NimbusError:
    """The session was logged out, or the refresh token is spent."""
    return NimbusError(Reason.SESSION_ENDED, "This session has ended, or its refresh token is spent. Log in again.")
