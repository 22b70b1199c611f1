"""Requests as protobuf bytes, before they are parsed.

Their events are counted, because two bytes of an empty event become a hundred, and taken apart where one of them can't
be parsed. The format: protobuf.dev/programming-guides/encoding. What isn't valid is left to the parser, which says so.
"""

from collections.abc import Iterator

# Field 2, with its length.
EVENTS_TAG = 2 << 3 | 2
# Bytes of values by wire type. Groups have none: their fields follow.
FIXED_BYTES = {1: 8, 3: 0, 4: 0, 5: 4}
VARINT_BYTES_MAX = 10


def has_more_events(raw: bytes, than: int) -> bool:
    """Whether a request holds more events than so many; their insides are skipped."""
    try:
        return any(number > than for number, _ in enumerate(_events(raw), start=1))
    except (IndexError, KeyError):
        return False


def split_events(raw: bytes) -> tuple[bytes, list[bytes]]:
    """A request without its events, and its events, all as bytes. Raises ValueError where it can't be taken apart."""
    rest, events, end = [], [], 0
    try:
        for begin, value, following in _events(raw):
            rest.append(raw[end:begin])
            events.append(raw[value:following])
            end = following
    except (IndexError, KeyError):
        raise ValueError("not a protobuf message") from None
    if end > len(raw):
        raise ValueError("the last event is cut off")
    return b"".join((*rest, raw[end:])), events


def _events(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Where the events of a request begin with their tag and with their value, and where they end."""
    at, end = 0, len(raw)
    while at < end:
        begin, tag = at, raw[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(raw, at - 1)
        wire_type = tag & 7
        if wire_type > 2 or wire_type == 1:
            at += FIXED_BYTES[wire_type]
            continue
        value = raw[at]
        at += 1
        if value >= 0x80:
            value, at = _varint(raw, at - 1)
        if wire_type == 2:
            if tag == EVENTS_TAG:
                yield begin, at, at + value
            at += value


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and the place behind it. Raises IndexError where it has no end."""
    value = 0
    for shift in range(0, 7 * VARINT_BYTES_MAX, 7):
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError
