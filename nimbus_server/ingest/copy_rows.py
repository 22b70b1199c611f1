"""Rows of `events` in the binary format of COPY, built by hand: PostgreSQL then casts nothing and parses only JSON.

Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format". A row is the number of its columns and
for each one its length in bytes (-1 for NULL) and its bytes; integers are big-endian; a timestamptz is microseconds
since 2000, a jsonb the byte 1 and text.
"""

import struct
from collections.abc import Sequence

from nimbus_server.clock import POSTGRES_EPOCH
from nimbus_server.ingest.event import NewEvent

COPY_EVENTS = (
    "COPY events (project_id, ts, id, seq, received_at, name, user_id, idempotency_key, anonymous_id, context, props) "
    "FROM STDIN (FORMAT binary)"
)
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
# A table is twice as fast as int.to_bytes.
LENGTHS = [length.to_bytes(4) for length in range(1000)]
# What comes before the text of a jsonb column: the length of both, and the version.
jsonb_head = struct.Struct("!IB").pack

_COLUMNS = 11
# Column count, then length and value of project_id, ts, id, seq and received_at.
_head = struct.Struct("!hi16siqi16siqiq").pack


def text(value: bytes) -> bytes:
    """A text column of less than LENGTHS in UTF-8."""
    return LENGTHS[len(value)] + value


def jsonb(value: bytes) -> bytes:
    """A jsonb column from JSON in UTF-8, of at most 2 GB."""
    return jsonb_head(len(value) + 1, 1) + value


# The columns anonymous_id and context of an event that has neither.
NEITHER = NULL + jsonb(b"{}")


def rows(project_id: bytes, events: Sequence[NewEvent], first_seq: int, received_at: int) -> list[bytes]:
    """Events as rows, at positions from `first_seq` on; `received_at` in microseconds since 1970."""
    received = received_at - POSTGRES_EPOCH
    return [
        _head(_COLUMNS, 16, project_id, 8, ts - POSTGRES_EPOCH, 16, event_id, 8, seq, 8, received) + texts
        for seq, (_, event_id, ts, _, _, texts) in enumerate(events, start=first_seq)
    ]
