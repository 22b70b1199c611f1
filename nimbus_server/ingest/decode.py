"""What events of every form have in common: when and by what right they came, and the checks that make one valid."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import repeat
from operator import add
from typing import TypeVar, cast

from nimbus_server.errors import Reason, field_error
from nimbus_server.ingest import identity
from nimbus_server.ingest.copy_rows import LENGTHS, NEITHER, NULL, jsonb, jsonb_head
from nimbus_server.ingest.event import (
    ANONYMOUS_ID_LENGTH_MAX,
    EVENTS_MAX,
    IDEMPOTENCY_KEY_LENGTH_MAX,
    NAME_LENGTH_MAX,
    TS_AHEAD_MAX,
    TS_MIN,
    USER_ID_LENGTH_MAX,
    EventRefusedError,
    NewEvent,
    Refusal,
)

T = TypeVar("T")
# Events that are read at a time. Those among which one is bad are read again, one by one.
TOGETHER = 50
# A third of the time of calling NewEvent.
new_event = partial(tuple.__new__, NewEvent)


@dataclass(frozen=True, slots=True)
class Origin:
    """When and by what right a batch came; all times in microseconds since 1970.

    `default_ts` is the ts of events without one: the signature's time, or that of arrival. `id_prefix` begins the
    identities of events without a key; `repeatable` says that another attempt would come with the same. `key_id` is
    the API key that signed, None for a person. `skew` is by how much the sender's clock is behind, None where the
    sender did not say. Older events than `ts_min` are not kept.
    """

    received_at: int
    default_ts: int
    id_prefix: bytes
    repeatable: bool
    key_id: str | None = None
    skew: int | None = None
    ts_min: int = TS_MIN


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of a request that can be stored, and those that can't."""

    events: list[NewEvent]
    refusals: list[Refusal]


def check_count(count: int) -> None:
    """Raise NimbusError with BATCH_EMPTY or BATCH_TOO_LARGE unless a request may have so many events."""
    if count == 0:
        raise field_error(Reason.BATCH_EMPTY, "events", "events must hold at least one event.")
    if count > EVENTS_MAX:
        raise field_error(Reason.BATCH_TOO_LARGE, "events", f"events may hold at most {EVENTS_MAX} events.")


def decode(
    events: Sequence[T], origin: Origin, read: Callable[[int, Sequence[T], Origin], list[NewEvent]], first: int = 0
) -> Batch:
    """Read events, of which the first has the index `first`.

    `read` takes some of them, of which the first has the index given, and raises EventRefusedError where one is bad.
    """
    valid: list[NewEvent] = []
    refusals: list[Refusal] = []
    for start in range(0, len(events), TOGETHER):
        some = events[start : start + TOGETHER]
        try:
            valid += read(first + start, some, origin)
        except EventRefusedError:
            # One by one, to know which, and to have the others.
            for place, event in enumerate(some, start=first + start):
                try:
                    valid += read(place, (event,), origin)
                except EventRefusedError as error:
                    refusals.append(Refusal(place, error.field, error.reason, error.message))
    return Batch(valid, refusals)


def valid_events(
    first: int,
    names: Sequence[str],
    tss: Sequence[int | None],
    user_ids: Sequence[str | None],
    keys: Sequence[str | None],
    props: Iterable[bytes],
    origin: Origin,
    *,
    anonymous_ids: Sequence[str | None] | None = None,
    contexts: Sequence[bytes] | None = None,
) -> list[NewEvent]:
    """The events with these fields; `props` and `contexts` are as encode_props gives them.

    No `anonymous_ids` or no `contexts` at all: none of the events has one. Column by column: that takes half the time
    of event by event. Raises EventRefusedError where one is not valid.
    """
    of_names = list(map(_name, names))
    of_users = _texts("user_id", user_ids, USER_ID_LENGTH_MAX)
    ats = _ats(tss, origin)
    of_keys = _texts("idempotency_key", keys, IDEMPOTENCY_KEY_LENGTH_MAX)
    columns = identities = list(map(add, map(add, of_names, of_users), of_keys))
    extras: Iterable[bytes] = repeat(NEITHER, len(names))
    if anonymous_ids is not None or contexts is not None:
        of_anonymous = _texts("anonymous_id", anonymous_ids or [None] * len(names), ANONYMOUS_ID_LENGTH_MAX)
        identities = list(map(add, map(add, of_names, map(_whom, of_users, of_anonymous)), of_keys))
        extras = map(add, of_anonymous, map(jsonb, contexts or repeat(b"{}", len(names))))
    ts_is_stable = origin.skew is None
    claimed: Iterable[int | None] = repeat(None, len(names)) if ts_is_stable else tss
    places = range(first, first + len(names))
    # None is empty.
    if all(keys):
        ids = list(map(identity.keyed, identities, claimed))
    else:
        ids = [
            origin.id_prefix + place.to_bytes(2) if key is None else identity.keyed(of_event, ts)
            for place, key, of_event, ts in zip(places, keys, identities, claimed, strict=True)
        ]
    # Another attempt comes with another time of arrival, and with another skew.
    if ts_is_stable and None not in tss:
        floating: Iterable[bool] = repeat(False, len(names))
    else:
        floats = origin.repeatable and not ts_is_stable
        floating = [
            floats if key is None else ts is None or not ts_is_stable for key, ts in zip(keys, tss, strict=True)
        ]
    texts = [
        of_event + extra + jsonb_head(len(encoded) + 1, 1) + encoded
        for of_event, extra, encoded in zip(columns, extras, props, strict=True)
    ]
    return list(map(new_event, zip(places, ids, ats, floating, names, texts, strict=True)))


def _ats(tss: Sequence[int | None], origin: Origin) -> Sequence[int]:
    given = [ts for ts in tss if ts is not None]
    skew = origin.skew or 0
    if given and not (origin.ts_min <= min(given) + skew and max(given) + skew <= origin.received_at + TS_AHEAD_MAX):
        raise _out_of_range(origin)
    if len(given) == len(tss) and not skew:
        return given
    default = origin.default_ts if origin.skew is None else origin.received_at
    return [default if ts is None else ts + skew for ts in tss]


def _whom(of_user: bytes, of_anonymous: bytes) -> bytes:
    """What stands for the person in the identity of an event."""
    return of_user + of_anonymous if of_user == NULL and of_anonymous != NULL else of_user


# A project's events have few names.
@lru_cache(maxsize=4096)
def _name(name: str) -> bytes:
    if not name:
        raise EventRefusedError("name", Reason.FIELD_REQUIRED, "name is required.")
    return _text("name", name, NAME_LENGTH_MAX)


def _texts(field: str, values: Sequence[str | None], length_max: int) -> list[bytes]:
    try:
        given = cast("Sequence[str]", values)
        # All at once. A value with a NUL becomes two.
        encoded = "\0".join(given).encode().split(b"\0")
        if len(encoded) == len(given) and all(given) and max(map(len, given)) <= length_max:
            return [LENGTHS[len(value)] + value for value in encoded]
    except (TypeError, UnicodeEncodeError):
        pass
    return [NULL if value is None else _text(field, value, length_max) for value in values]


def _text(field: str, value: str, length_max: int) -> bytes:
    if 0 < len(value) <= length_max and "\0" not in value:
        try:
            encoded = value.encode()
            return LENGTHS[len(encoded)] + encoded
        except UnicodeEncodeError:
            pass
    if not value:
        raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must not be empty: leave it out instead.")
    if len(value) > length_max:
        raise EventRefusedError(field, Reason.FIELD_TOO_LONG, f"{field} must have at most {length_max} characters.")
    raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must not contain NUL or half a character.")


def _out_of_range(origin: Origin) -> EventRefusedError:
    oldest = "the year 2000" if origin.ts_min == TS_MIN else "the oldest that this server keeps"
    return EventRefusedError("ts", Reason.TS_OUT_OF_RANGE, f"ts must lie between {oldest} and 24 hours from now.")
