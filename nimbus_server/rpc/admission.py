"""Who makes a call: from what its access option asks for, and the credentials that came with it."""

from google.protobuf.message import Message

from nimbus.v1.access_pb2 import Access
from nimbus_server import patience
from nimbus_server.accounts.authenticator import Authenticator
from nimbus_server.accounts.caller import Caller
from nimbus_server.accounts.signatures import SignedRequest
from nimbus_server.accounts.tokens import TokenKind
from nimbus_server.clock import Clock
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.call import Call
from nimbus_server.rpc.json_body import JSON_BODY
from nimbus_server.rpc.registry import Rpc

FOR_MACHINES = frozenset({Access.ACCESS_PROJECT, Access.ACCESS_STREAM})
SIGNATURE_HEADERS = ("x-api-key-id", "x-api-timestamp", "x-api-signature")


class Admission:
    """Finds out who calls, for whichever way the call came in."""

    def __init__(self, authenticator: Authenticator, clock: Clock) -> None:
        self._authenticator = authenticator
        self._clock = clock

    async def admit(self, rpc: Rpc, call: Call, raw: bytes, request: Message | None) -> Caller:
        """Whoever calls, by the request as it came (`raw`) and as it was parsed, where that was done already.

        Raises NimbusError with CREDENTIALS_MISSING and what the methods of Authenticator do.
        """
        until = patience.until(call.seconds_left)
        if rpc.access == Access.ACCESS_STREAM and (token := getattr(request, "token", "")):
            return await self._authenticator.stream_opener(token, self._clock(), until)
        if rpc.access in FOR_MACHINES and any(h in call.metadata for h in SIGNATURE_HEADERS):
            signed = _signed_request(call, raw, request)
            return await self._authenticator.machine(signed, self._clock(), until, key_is_checked_later=rpc.is_ingest)
        scheme, _, token = call.metadata.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NimbusError(Reason.CREDENTIALS_MISSING, _what_is_needed(rpc))
        kind = TokenKind.REFRESH if rpc.access == Access.ACCESS_REFRESH else TokenKind.ACCESS
        return await self._authenticator.person(token.strip(), kind, until)


def _signed_request(call: Call, raw: bytes, request: Message | None) -> SignedRequest:
    lacking = [name for name in SIGNATURE_HEADERS if not call.metadata.get(name)]
    if lacking:
        raise NimbusError(Reason.CREDENTIALS_MISSING, f"A signed request also needs {' and '.join(lacking)}.")
    key_id, timestamp, signature = (call.metadata[name] for name in SIGNATURE_HEADERS)
    if call.rest_path is None or request is None:
        return SignedRequest(key_id, timestamp, signature, "POST", call.rpc, raw)
    carrier = next((name for name in ("http_body", JSON_BODY) if name in request.DESCRIPTOR.fields_by_name), None)
    body: bytes = getattr(request, carrier).data if carrier else b""
    return SignedRequest(key_id, timestamp, signature, call.rest_method or "POST", call.rest_path, body)


def _what_is_needed(rpc: Rpc) -> str:
    if rpc.access == Access.ACCESS_REFRESH:
        return "This call needs `authorization: Bearer` with a refresh token."
    if rpc.access in FOR_MACHINES:
        headers = ", ".join(SIGNATURE_HEADERS)
        by_token = (
            "" if rpc.access != Access.ACCESS_STREAM else ", or `token` in the query with one of CreateStreamToken"
        )
        return f"This call needs a signature in {headers}, or `authorization: Bearer` with an access token{by_token}."
    return "This call needs `authorization: Bearer` with an access token. Log in to get one."
