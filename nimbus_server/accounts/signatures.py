"""Signatures of machines: HMAC-SHA256 over `{timestamp}:{METHOD}:{path}:` and the body, in hex."""

import hashlib
import hmac
import math
from dataclasses import dataclass
from datetime import UTC, datetime

from nimbus_server.errors import NimbusError, Reason

CLOCK_SKEW_SECONDS_MAX = 300


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What was signed and how.

    `timestamp` is the header's text: it goes into the signature letter by letter. `path` includes the query; `body`
    is the bytes as sent.
    """

    key_id: str
    timestamp: str
    signature: str
    method: str
    path: str
    body: bytes


def signed_at(request: SignedRequest, now: datetime) -> datetime:
    """The moment that the signature claims, in UTC.

    Raises NimbusError with SIGNATURE_STALE where it is no number of unix seconds or too far from `now`.
    """
    try:
        seconds = float(request.timestamp)
    except ValueError:
        seconds = math.nan
    if abs(seconds - now.timestamp()) <= CLOCK_SKEW_SECONDS_MAX:  # False for NaN
        return datetime.fromtimestamp(seconds, UTC)
    raise NimbusError(
        Reason.SIGNATURE_STALE,
        f"x-api-timestamp must be unix seconds within {CLOCK_SKEW_SECONDS_MAX} of the server's clock. "
        "Sign each attempt anew, and check your clock.",
        metadata={"server_time": str(int(now.timestamp()))},
    )


def signature_of(request: SignedRequest, secret: str) -> str:
    """The signature that this request has if `secret` signed it: 64 lower-case hex digits."""
    mac = hmac.new(secret.encode(), f"{request.timestamp}:{request.method}:{request.path}:".encode(), hashlib.sha256)
    mac.update(request.body)
    return mac.hexdigest()


def verify(request: SignedRequest, secret: str) -> str:
    """The signature in its one normal form. Constant time.

    Raises NimbusError with SIGNATURE_MISMATCH unless `secret` signed this request.
    """
    given = request.signature.strip().lower().encode("utf-8", "replace")
    expected = signature_of(request, secret)
    if not hmac.compare_digest(expected.encode(), given):
        raise NimbusError(
            Reason.SIGNATURE_MISMATCH,
            'The signature does not match the request. Sign "{timestamp}:{METHOD}:{path}:" and then the exact bytes of '
            "the body with HMAC-SHA256, in hex.",
        )
    return expected
