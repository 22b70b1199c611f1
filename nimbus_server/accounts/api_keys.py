"""API keys of projects: how they look, and how their secrets are kept.

`nbk_` (id) or `nbs_` (secret), random base-62 characters, and 6 more that are the CRC-32 of all before them in base
62: scanners know a leaked one by its prefix, and a mistyped one is found out without a query. The form is that of
GitHub's tokens (https://github.blog/engineering/behind-githubs-new-authentication-token-formats/).
"""

import secrets
import string
import zlib
from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from nimbus_server.errors import StartupError
from nimbus_server.settings import Settings

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_PREFIX = "nbk_"
SECRET_PREFIX = "nbs_"
CHECKSUM_LENGTH = 6


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key id, which is public, and its secret, which is shown once."""

    id: str
    secret: str = field(repr=False)


def new_api_key() -> ApiKey:
    """A random key: 24 characters (142 bits) of id, 43 (256 bits) of secret."""
    return ApiKey(_token(ID_PREFIX, 24), _token(SECRET_PREFIX, 43))


def is_well_formed(key_id: str) -> bool:
    """Whether this can be the id of a key at all."""
    body, checksum = key_id[:-CHECKSUM_LENGTH], key_id[-CHECKSUM_LENGTH:]
    return key_id.startswith(ID_PREFIX) and key_id.isascii() and checksum == _checksum(body)


class SecretBox:
    """Encrypts API secrets at rest with Fernet (AES-128-CBC and HMAC-SHA256).

    The first of `NIMBUS_SECRET_KEYS` encrypts, all of them decrypt, so that keys can be rotated.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key.get_secret_value()) for key in settings.secret_keys])
        except ValueError:
            raise StartupError(
                "NIMBUS_SECRET_KEYS must hold Fernet keys (32 bytes in URL-safe base64), separated by commas. "
                "`nimbus config --new-secrets` prints one."
            ) from None

    def seal(self, secret: str) -> bytes:
        """The encrypted secret to store."""
        return self._fernet.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str | None:
        """The secret, or None where no key of this server opens it."""
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            return None


def _token(prefix: str, length: int) -> str:
    body = prefix + "".join(secrets.choice(ALPHABET) for _ in range(length))
    return body + _checksum(body)


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
