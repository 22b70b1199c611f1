"""A simple model of a log: what clients send, and what should then be stored, in order."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from storage import NOW

# Times that clients give; signatures' times are other ones (half seconds), so that a row tells which it has.
GIVEN_TIMES = [NOW - timedelta(minutes=m) for m in (0, 1, 61, 60 * 24 * 40)] + [NOW - timedelta(seconds=1)]


@dataclass(frozen=True)
class Request:
    """What a client sends at a moment: again, it is the same bytes with the same signature."""

    events: list[dict[str, Any]]
    signature: str | None
    default_ts: datetime


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
            draw(st.sampled_from(lists)), f"{n:064x}" if draw(st.booleans()) else None, NOW + timedelta(seconds=n + 0.5)
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

    def deliver(self, request: Request, received_at: datetime) -> tuple[int, int, list[int]]:
        accepted, duplicates, refused = 0, 0, []
        for index, event in enumerate(request.events):
            if "\0" in event["name"]:
                refused.append(index)
                continue
            name, user, key = event["name"], event.get("user_id"), event.get("idempotency_key")
            ts = datetime.fromisoformat(event["ts"]) if "ts" in event else request.default_ts
            identity: tuple[Any, ...] = (id(request), index)
            if key:
                identity = (name, user, key, ts)
                if "ts" not in event:
                    ts = self._first_ts.setdefault((name, user, key), ts)
                    identity = (name, user, key, ts)
            if identity in self.rows:
                duplicates += 1
            else:
                accepted += 1
                self.rows[identity] = Row(name, user, key, ts, event["props"], received_at)
        return accepted, duplicates, refused
