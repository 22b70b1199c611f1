"""AuthService: accounts of people over gRPC."""

from contextlib import suppress
from uuid import UUID, uuid4

from email_validator import EmailNotValidError, validate_email

from nimbus.v1 import auth_service_pb2 as pb
from nimbus_server.accounts.authenticator import session_ended
from nimbus_server.accounts.caller import person
from nimbus_server.accounts.passwords import Match, Passwords, check_strength
from nimbus_server.accounts.store import AccountStore
from nimbus_server.accounts.tokens import TokenPair, Tokens
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.rpc.fields import timestamp

EMAIL_LENGTH_MAX = 254
TOKEN_TYPE = "bearer"


class AuthService:
    """Implements nimbus.v1.AuthService. Errors are those that the proto names for each RPC."""

    def __init__(self, store: AccountStore, tokens: Tokens, passwords: Passwords) -> None:
        self._store = store
        self._tokens = tokens
        self._passwords = passwords

    async def Register(self, request: pb.RegisterRequest) -> pb.RegisterResponse:
        email = _email(request.email)
        if not request.password:
            raise field_error(Reason.FIELD_REQUIRED, "password", "password is required.")
        check_strength(request.password, email)
        user_id = uuid4()
        await self._store.add_user(user_id, email, await self._passwords.hash(request.password))
        pair = await self._start_session(user_id)
        return pb.RegisterResponse(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            token_type=TOKEN_TYPE,
            expires_in=pair.expires_in_seconds,
            email=email,
            status="created",
        )

    async def Login(self, request: pb.LoginRequest) -> pb.LoginResponse:
        for field in ("email", "password"):
            if not getattr(request, field):
                raise field_error(Reason.FIELD_REQUIRED, field, f"{field} is required.")
        email = _normalized(request.email)
        user = await self._store.user_by_email(email) if email else None
        match = await self._passwords.match(request.password, user.password_hash if user else None)
        if match is Match.NONE or user is None:
            raise NimbusError(Reason.LOGIN_FAILED, "No user has this email and password.")
        if match is Match.OUTDATED:
            with suppress(NimbusError):  # too much to do just now, say: the next login tries again
                new = await self._passwords.hash(request.password)
                await self._store.set_password_hash(user.id, user.password_hash, new)
        pair = await self._start_session(user.id)
        return pb.LoginResponse(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            token_type=TOKEN_TYPE,
            expires_in=pair.expires_in_seconds,
        )

    async def Refresh(self, _request: pb.RefreshRequest) -> pb.RefreshResponse:
        caller = person()
        pair = self._tokens.issue(caller.user_id, caller.session_id)
        if not await self._store.rotate_session(
            caller.session_id, caller.token_id, pair.refresh_token_id, self._tokens.refresh_ttl_seconds
        ):
            raise session_ended()
        return pb.RefreshResponse(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            token_type=TOKEN_TYPE,
            expires_in=pair.expires_in_seconds,
        )

    async def Logout(self, _request: pb.LogoutRequest) -> pb.LogoutResponse:
        await self._store.end_session(person().session_id)
        return pb.LogoutResponse()

    async def GetMe(self, _request: pb.GetMeRequest) -> pb.GetMeResponse:
        user = await self._store.user(person().user_id)
        if user is None:
            raise session_ended()
        return pb.GetMeResponse(id=str(user.id), email=user.email, created_at=timestamp(user.created_at))

    async def _start_session(self, user_id: UUID) -> TokenPair:
        session_id = uuid4()
        pair = self._tokens.issue(user_id, session_id)
        await self._store.start_session(session_id, user_id, pair.refresh_token_id, self._tokens.refresh_ttl_seconds)
        return pair


def _email(given: str) -> str:
    if not given:
        raise field_error(Reason.FIELD_REQUIRED, "email", "email is required.")
    if len(given) > EMAIL_LENGTH_MAX:
        raise field_error(Reason.FIELD_TOO_LONG, "email", f"email must have at most {EMAIL_LENGTH_MAX} characters.")
    email = _normalized(given)
    if email is None:
        raise field_error(Reason.FIELD_INVALID, "email", "email must be an email address.")
    return email


def _normalized(given: str) -> str | None:
    if len(given) > EMAIL_LENGTH_MAX:
        return None
    try:
        # No look-up of the domain: a server may stand where it can't ask, and registration must not wait for others.
        return validate_email(given, check_deliverability=False).normalized
    except EmailNotValidError:
        return None
