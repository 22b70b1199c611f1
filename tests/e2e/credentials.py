"""Who makes a call, and how they prove it."""

import hashlib
import hmac
import time
from collections.abc import Callable

from conftest import Account

# From METHOD, path and body of a call to the headers that prove who makes it.
Credentials = Callable[[str, str, bytes], dict[str, str]]


def nobody(_method: str, _path: str, _body: bytes) -> dict[str, str]:
    return {}


def bearer(token: str) -> Credentials:
    return lambda _method, _path, _body: {"authorization": f"Bearer {token}"}


def signed(key_id: str, secret: str, timestamp: str | None = None) -> Credentials:
    """The formula as the documentation gives it, written down once more."""

    def sign(method: str, path: str, body: bytes) -> dict[str, str]:
        at = timestamp or f"{time.time():.6f}"
        mac = hmac.new(secret.encode(), f"{at}:{method}:{path}:".encode() + body, hashlib.sha256)
        return {"x-api-key-id": key_id, "x-api-timestamp": at, "x-api-signature": mac.hexdigest()}

    return sign


def person(account: Account) -> Credentials:
    return bearer(account.access_token)


def machine(account: Account) -> Credentials:
    return signed(account.api_key_id, account.api_key_secret)
