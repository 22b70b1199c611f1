"""Identities of events: 128 bits that a retry or a replay gives again.

With the event's `ts` they are its primary key within the project. Digests are cut to a UUID of version 8, clocks make
one of version 7 (RFC 9562, sections 5.7 and 5.8).
"""

import hashlib
import secrets
from datetime import datetime
from uuid import UUID


def keyed(name: str, user_id: str | None, idempotency_key: str) -> UUID:
    """The identity of an event with an idempotency key."""
    # Lengths keep ("ab", "c") and ("a", "bc") apart; -1 keeps no user apart from any.
    parts = [name, user_id, idempotency_key]
    lengths = ",".join(str(-1 if part is None else len(part)) for part in parts)
    return _uuid8(f"key:{lengths}:{name}{user_id or ''}{idempotency_key}".encode())


def signed(signature: str, index: int) -> UUID:
    """The identity of the event at `index` of a signed request: the same when the request is replayed."""
    return _uuid8(f"signature:{signature}:{index}".encode())


def fresh(at: datetime) -> UUID:
    """An identity that nothing else has, ordered by time."""
    milliseconds = int(at.timestamp() * 1000)
    return UUID(
        int=(milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    )


def _uuid8(material: bytes) -> UUID:
    number = int.from_bytes(hashlib.sha256(material).digest()[:16])
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 8 << 76 | 2 << 62)
