"""Times and time zones as text: one set of forms wherever Nimbus reads one.

For a time that is RFC 3339 with a few allowances: a date, `T`, `t` or a space, hours and minutes, and then, if they are
given, seconds, 1 to 9 digits of a fraction, and `Z`, `z` or an offset such as `+05:30`.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from nimbus_server.clock import all_micros, micros

EXAMPLE = "2025-11-01T12:00:00Z"

_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9])"
    r"(?::(?:[0-5][0-9]|(60))((?:\.[0-9]{1,9})?))?"
    r"((?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?)"
)
# What nearly all times look like, digits and signs aside.
_SHAPES = bytes.maketrans(b"123456789+", b"000000000-")
_FRACTIONS = [b"", *(b"." + b"0" * digits for digits in range(1, 10))]
_PLAIN = {b"0000-00-00T00:00:00" + fraction + b"Z" for fraction in _FRACTIONS}
_PLAIN_OR_OFFSET = _PLAIN | {b"0000-00-00T00:00:00" + fraction + b"-00:00" for fraction in _FRACTIONS}
# These Python takes, 24:00 in some versions alone.
_NO_OFFSET = re.compile("[+-][0-9]{2}:[6-9]")
_NO_HOUR = "T24:"


def read_time(text: str) -> datetime:
    """The moment in UTC, to the microsecond, further digits cut off; where the text has no offset, naive as it stands.

    Second 60, a leap second, is the first of the next minute, as in PostgreSQL. Raises ValueError, also for what is not
    within the years 1 to 9999 in UTC.
    """
    at = _read(text)
    try:
        return at.astimezone(UTC) if at.tzinfo else at
    except OverflowError:
        raise ValueError("not within the years 1 to 9999") from None


def read_zone(name: str) -> ZoneInfo:
    """The time zone of a name of the IANA database, such as `Europe/Berlin`. Raises ValueError."""
    if name not in _zones():
        raise ValueError("not a name of the IANA time zone database")
    return ZoneInfo(name)


@cache
def _zones() -> frozenset[str]:
    # `localtime` is the zone of whatever machine this is.
    return frozenset(available_timezones() - {"localtime"})


def read_utc(text: str) -> int:
    """Microseconds since 1970; a time without an offset is UTC. Raises ValueError."""
    at = _read(text)
    return micros(at if at.tzinfo else at.replace(tzinfo=UTC))


def read_plain_utc(texts: Sequence[Any]) -> list[int] | None:
    """Several times as read_utc gives them, where all are texts in the forms that nearly all times have.

    All at once they take a third of the time. None says that they are to be read one by one.
    """
    try:
        joined = "\n".join(texts)
        shapes = set(joined.encode().translate(_SHAPES).split(b"\n"))
        if not _PLAIN.issuperset(shapes) and (not _PLAIN_OR_OFFSET.issuperset(shapes) or _NO_OFFSET.search(joined)):
            return None
        return None if _NO_HOUR in joined else all_micros(map(datetime.fromisoformat, texts))
    except (TypeError, ValueError):
        return None


def _read(text: str) -> datetime:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"not a time such as {EXAMPLE}")
    if found[2] is None:
        return datetime.fromisoformat(text if text[-1] != "z" else text.upper())
    minute, _, fraction, offset = found.groups()
    try:
        return datetime.fromisoformat(f"{minute}:59{fraction}{offset.upper()}") + timedelta(seconds=1)
    except OverflowError:
        raise ValueError("later than the year 9999") from None
