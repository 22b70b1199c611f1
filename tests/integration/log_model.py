"""A simple model of a log: what clients send, and what should then be stored, in order."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from storage import NOW

# Times that clients give; signatures' times are other ones (half seconds), so that a row tells which it has.
# By a sender's clock; and arrivals are a quarter of a second past a full one: no corrected time is a given one.
SENT_TIMES = [NOW + timedelta(days=d, milliseconds=100) for d in (0, 3 * 365, -2)] + [NOW + timedelta(seconds=2.1)]
GIVEN_TIMES = [NOW - timedelta(minutes=m) for m in (0, 1, 61, 60 * 24 * 40)] + [NOW - timedelta(seconds=1)]


@dataclass(frozen=True)
class Request:
    """What a client sends at a moment: again, it is the same bytes with the same signature."""

    events: list[dict[str, Any]]
    signature: str | None
    default_ts: datetime
    sent_at: datetime | None = None


@dataclass(frozen=True)
class Told:
    """What a delivery should be told: indexes of its events, the accepted ones with their positions."""

    stored: dict[int, int]
    duplicates: list[int]
    refused: list[int]


@dataclass(frozen=True)
class Row:
    """What the model expects of a stored event."""

    name: str
    user_id: str | None
    key: str | None
    ts: datetime
    props: Any
    received_at: datetime


EVENT = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b", "a", "b", "bad\0name"]), "props": st.integers(0, 99).map(lambda n: {"n": n})},
    optional={
        "user_id": st.sampled_from(["u", "v"]),
        "idempotency_key": st.sampled_from(["k1", "k2"]),
        "ts": st.sampled_from([at.isoformat() for at in GIVEN_TIMES]),
    },
)


@st.composite
def deliveries(draw: st.DrawFn) -> list[Request]:
    """Requests over few lists of events, so that clients sign the same anew; each delivered once or more."""
    lists = draw(st.lists(st.lists(EVENT, min_size=1, max_size=6), min_size=1, max_size=3))
    requests = [
        Request(
            draw(st.sampled_from(lists)),
            f"{n:064x}" if draw(st.booleans()) else None,
            NOW + timedelta(seconds=n + 0.5),
            draw(st.sampled_from([None, None, *SENT_TIMES])),
        )
        for n in range(draw(st.integers(1, 4)))
    ]
    repeats = draw(st.lists(st.sampled_from(requests), max_size=5))
    return draw(st.permutations(requests + repeats))


class Model:
    """What should be stored, in order, and what each delivery should be told."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], Row] = {}
        self._first_ts: dict[tuple[Any, ...], datetime] = {}
        self._arrived: dict[int, datetime] = {}

    def deliver(self, request: Request, received_at: datetime) -> Told:
        # A request that is not signed is decoded once: its repeats are the server's own retries.
        arrived = self._arrived.setdefault(id(request), received_at) if request.signature is None else received_at
        told = Told({}, [], [])
        for index, event in enumerate(request.events):
            found = self._place(request, index, arrived)
            if found is None:
                told.refused.append(index)
            elif found in self.rows:
                told.duplicates.append(index)
            else:
                told.stored[index] = len(self.rows) + 1
                name, user, key = event["name"], event.get("user_id"), event.get("idempotency_key")
                self.rows[found] = Row(name, user, key, found[-1], event["props"], received_at)
        return told

    def _place(self, request: Request, index: int, arrived: datetime) -> tuple[Any, ...] | None:
        """Identity and ts of an event; None where it is to be refused."""
        event = request.events[index]
        given = datetime.fromisoformat(event["ts"]) if "ts" in event else None
        if request.sent_at is None:
            ts = given or request.default_ts
        else:
            ts = arrived if given is None else given + (arrived - request.sent_at)
        if "\0" in event["name"] or ts > arrived + timedelta(days=1):
            return None
        claimed = given if request.sent_at else None
        if key := event.get("idempotency_key"):
            identity: tuple[Any, ...] = (event["name"], event.get("user_id"), key, claimed)
            moves = given is None or request.sent_at is not None
        else:
            identity, moves = (id(request), index), request.sent_at is not None
        return (*identity, self._first_ts.setdefault(identity, ts) if moves else ts)
