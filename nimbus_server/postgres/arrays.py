"""Arrays as parameters in binary, joined from bytes that are there already: psycopg would convert each element.

Format: array_send in PostgreSQL's src/backend/utils/adt/arrayfuncs.c: number of dimensions, whether there are NULLs,
type of the elements, length and lower bound, then each element after its length.
"""

import struct
from collections.abc import Iterable

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

from nimbus_server.clock import POSTGRES_EPOCH

UUID_OID, UUID_ARRAY_OID = 2950, 2951
TIMESTAMPTZ_OID, TIMESTAMPTZ_ARRAY_OID = 1184, 1185

_ARRAY_HEAD = struct.Struct("!iiIii")


class UuidArray:
    """A uuid[] of values of 16 bytes."""

    def __init__(self, values: Iterable[bytes]) -> None:
        self.encoded = _array(UUID_OID, 16, list(values))


class TimestamptzArray:
    """A timestamptz[] of moments in microseconds since 1970."""

    def __init__(self, values: Iterable[int]) -> None:
        self.encoded = _array(TIMESTAMPTZ_OID, 8, [(v - POSTGRES_EPOCH).to_bytes(8, signed=True) for v in values])


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: UuidArray | TimestamptzArray) -> Buffer:
        return obj.encoded


class _UuidArrayDumper(_ArrayDumper):
    oid = UUID_ARRAY_OID


class _TimestamptzArrayDumper(_ArrayDumper):
    oid = TIMESTAMPTZ_ARRAY_OID


def _array(oid: int, size: int, values: list[bytes]) -> bytes:
    if not values:
        return struct.pack("!iiI", 0, 0, oid)
    length = size.to_bytes(4)
    return _ARRAY_HEAD.pack(1, 0, oid, len(values), 1) + length + length.join(values)


psycopg.adapters.register_dumper(UuidArray, _UuidArrayDumper)
psycopg.adapters.register_dumper(TimestamptzArray, _TimestamptzArrayDumper)
