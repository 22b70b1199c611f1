"""The signature of a call, as `ACCESS_PROJECT` in nimbus/v1/access.proto describes it."""

import hashlib
import hmac
import time


def signature_headers(
    key_id: str,
    secret: str,
    method_or_path: str,
    body: bytes,
    *,
    http_method: str = "POST",
    timestamp: float | None = None,
) -> dict[str, str]:
    """The three headers (over gRPC: metadata) that sign one call.

    `method_or_path` is the RPC's full name (`/nimbus.v1.EventService/IngestEvents`), or over REST the path with its
    query, percent-encoded as it is sent. `body` is exactly what travels: the serialized request, or the HTTP body.
    `timestamp` is in unix seconds; the default is now, to the microsecond, so that two calls with the same body are not
    taken for one and its replay.
    """
    stamp = str(timestamp) if isinstance(timestamp, int) else f"{time.time() if timestamp is None else timestamp:.6f}"
    signed = f"{stamp}:{http_method.upper()}:{method_or_path}:".encode() + body
    return {
        "x-api-key-id": key_id,
        "x-api-timestamp": stamp,
        "x-api-signature": hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest(),
    }
