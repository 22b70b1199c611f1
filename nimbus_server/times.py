"""Times as text: one set of forms wherever Nimbus reads one.

That is RFC 3339 with a few allowances: a date, `T`, `t` or a space, hours and minutes, and then, if they are given,
seconds, 1 to 9 digits of a fraction, and `Z`, `z` or an offset such as `+05:30`.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from nimbus_server.clock import all_micros, micros

EXAMPLE = "2025-11-01T12:00:00Z"

_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]((?:[01][0-9]|2[0-3]):[0-5][0-9])"
    r"(?::([0-5][0-9]|60)(?:\.([0-9]{1,9}))?)?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?"
)
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
# What nearly all times look like, digits aside.
_PLAIN = {b"0000-00-00T00:00:00Z", *(b"0000-00-00T00:00:00.%bZ" % (b"0" * digits) for digits in range(1, 10))}


def read_time(text: str) -> datetime:
    """The moment to the microsecond, further digits cut off; naive where the text has no offset.

    Second 60, a leap second, is the first moment of the next minute, as in PostgreSQL. Raises ValueError.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"not a time such as {EXAMPLE}")
    date, minute, second, fraction, offset = found.groups()
    at = datetime.fromisoformat(f"{date}T{minute}{(offset or '').upper()}")
    try:
        return at + timedelta(seconds=int(second or 0), microseconds=int(f"{fraction or 0:0<6}"[:6]))
    except OverflowError:
        raise ValueError("later than the year 9999") from None


def read_utc(text: str) -> int:
    """Microseconds since 1970; a time without an offset is UTC. Raises ValueError."""
    at = read_time(text)
    return micros(at if at.tzinfo else at.replace(tzinfo=UTC))


def read_plain_utc(texts: Sequence[Any]) -> list[int] | None:
    """Several times as read_utc gives them, where all are texts in the form that nearly all times have.

    All at once they take two thirds of the time. None says that they are to be read one by one.
    """
    try:
        joined = "\n".join(texts)
        if _PLAIN.issuperset(joined.encode().translate(_DIGITS).split(b"\n")) and "T24:" not in joined:
            return all_micros(map(datetime.fromisoformat, texts))
    except (TypeError, ValueError):
        pass
    return None
