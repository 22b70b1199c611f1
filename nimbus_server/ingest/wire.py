"""Requests as protobuf bytes, looked at before they are parsed: two bytes of an empty event become a hundred.

The format: protobuf.dev/programming-guides/encoding. What isn't valid is left to the parser, which says so.
"""

# Field 2, with its length.
EVENTS_TAG = 2 << 3 | 2
# Bytes of values by wire type. Groups have none: their fields follow.
FIXED_BYTES = {1: 8, 3: 0, 4: 0, 5: 4}
VARINT_BYTES_MAX = 10


def has_more_events(raw: bytes, than: int) -> bool:
    """Whether a request holds more events than so many; their insides are skipped."""
    try:
        return _has_more_events(raw, than)
    except (IndexError, KeyError):
        return False


def _has_more_events(raw: bytes, than: int) -> bool:
    at, end, events = 0, len(raw), 0
    while at < end:
        tag = raw[at]
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
            at += value
            events += tag == EVENTS_TAG
            if events > than:
                return True
    return False


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
