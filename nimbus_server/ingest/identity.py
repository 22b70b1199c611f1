"""Identities of events: 16 bytes that a retry or a replay gives again.

With the event's `ts` they are its primary key within the project. BLAKE2b digests (RFC 7693) make a UUID of version
8, clocks one of version 7 (RFC 9562, sections 5.7 and 5.8).

Events without a key share all but the last two bytes of their identities with the others of their batch: those count
them.
"""

import re
import secrets
import struct
from hashlib import blake2b

PREFIX_BYTES = 14

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_VERSION_7, _VARIANT = b"\x70", b"\x80"
# Version 8 and the variant take two whole bytes, which are the same: 112 bits of digest are left, in three parts.
_VERSION_8_AND_VARIANT = b"\x80"
_parts = struct.Struct("6s1s7s").unpack
# To copy a digest that is begun costs less than to make one.
_begun = blake2b(digest_size=14)
_begun_keyed = blake2b(b"key:", digest_size=14)


def keyed(columns: bytes, claimed_ts: int | None = None) -> bytes:
    """The identity of an event with an idempotency key.

    `columns` are its name, user_id and idempotency_key as COPY takes them: each after its length, so that ("ab", "c")
    and ("a", "bc") differ. Where it has no user_id but an anonymous_id, that stands behind the user_id. `claimed_ts`
    belongs to it where the event is stored under another, corrected one.
    """
    if claimed_ts is not None:
        return _uuid8(b"key at %d:%b" % (claimed_ts, columns))
    digest = _begun_keyed.copy()
    digest.update(columns)
    return _VERSION_8_AND_VARIANT.join(_parts(digest.digest()))


def signed(signature: str, batch: int = 0) -> bytes:
    """The first PREFIX_BYTES of a signed batch's identities: the same when the request is replayed.

    `batch` is its number where one signature covers several.
    """
    return _uuid8(f"signature:{signature}:{batch}".encode())[:PREFIX_BYTES]


def fresh(at: int) -> bytes:
    """PREFIX_BYTES of identities that nothing else has, ordered by time; `at` in microseconds since 1970."""
    random = secrets.token_bytes(6)
    return (at // 1000).to_bytes(6) + _VERSION_7 + random[:1] + _VARIANT + random[1:]


def of_file_line(file: str, number: int, line: bytes) -> bytes:
    """The identity of an event that a line of a file gives. The file's name may hold bytes that are not UTF-8."""
    return _uuid8(f"line:{len(file)}:{file}:{number}:".encode(errors="surrogateescape") + line)


def of_source(name: str) -> bytes:
    """The identity of an event that has one where it comes from: a UUID, written with hyphens, is kept as it is.

    Raises UnicodeEncodeError where `name` holds half a character.
    """
    return bytes.fromhex(name.replace("-", "")) if _UUID.fullmatch(name) else _uuid8(b"source:" + name.encode())


def _uuid8(material: bytes) -> bytes:
    digest = _begun.copy()
    digest.update(material)
    return _VERSION_8_AND_VARIANT.join(_parts(digest.digest()))
