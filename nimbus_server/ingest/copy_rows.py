"""Rows of `events` in the binary format of COPY, built by hand: PostgreSQL then neither casts nor parses but props.

Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format". A row is the number of its columns and
for each one its length in bytes (-1 for NULL) and its bytes; integers are big-endian; a timestamptz is microseconds
since 2000, a jsonb the byte 1 and text.
"""

import struct

from nimbus_server.postgres.arrays import POSTGRES_EPOCH

COPY_EVENTS = (
    "COPY events (project_id, ts, id, seq, received_at, name, user_id, idempotency_key, props) "
    "FROM STDIN (FORMAT binary)"
)
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
# A table is twice as fast as int.to_bytes.
LENGTHS = [length.to_bytes(4) for length in range(1000)]

_COLUMNS = 9
# Column count, then length and value of project_id, ts, id, seq and received_at.
_HEAD = struct.Struct("!hi16siqi16siqiq")


def text(value: bytes) -> bytes:
    """A text column of less than LENGTHS in UTF-8."""
    return LENGTHS[len(value)] + value


def jsonb(value: bytes) -> bytes:
    """A jsonb column from JSON in UTF-8, of at most 2 GB."""
    return (len(value) + 1).to_bytes(4) + b"\x01" + value


def head(project_id: bytes, ts: int, event_id: bytes, seq: int, received_at: int) -> bytes:
    """A row up to its texts; times in microseconds since 1970."""
    return _HEAD.pack(
        _COLUMNS, 16, project_id, 8, ts - POSTGRES_EPOCH, 16, event_id, 8, seq, 8, received_at - POSTGRES_EPOCH
    )
