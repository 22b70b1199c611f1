"""Random logs, how they come to be stored, and questions about them, for Hypothesis.

Each question and its events are those that its unit tests draw. Here the properties that it reads have names that are
odd, and stand among others in events that are stored in several ways.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from hypothesis import strategies as st
from oracle import random_funnels, random_paths, random_retention
from oracle.random_events import DOCUMENTS, FILTERS
from oracle.random_trends import trends

from nimbus.v1.funnel_pb2 import QueryFunnelRequest
from nimbus.v1.paths_pb2 import QueryPathsRequest
from nimbus.v1.retention_pb2 import QueryRetentionRequest
from nimbus.v1.trend_pb2 import QueryTrendRequest
from nimbus_server.clock import moment
from nimbus_server.times import read_utc

Event = dict[str, Any]

REQUESTS: Mapping[str, type[Message]] = {
    "QueryTrend": QueryTrendRequest,
    "QueryFunnel": QueryFunnelRequest,
    "QueryRetention": QueryRetentionRequest,
    "QueryPaths": QueryPathsRequest,
}
# The keys of props that the questions of the unit tests read.
OWN_KEYS = ("k", "n", "p", "q", "page")
# Where they stand here. A property and its other case are not asked for together.
PLACES = [
    ("props", "plan"),
    ("props", "Plan2"),
    ("props", "a.b"),
    ("props", 'q"uo'),
    ("props", "back\\slash"),
    ("props", ""),
    ("props", "$[*]"),
    ("props", "a:s"),
    ("props", "'; DROP TABLE src; --"),
    ("props", "sp ace", "ünï"),
    ("props", "a.b", "", "x"),
    ("props", "0", "1"),
    ("context", "page", "path"),
    ("context", "PLAN"),
]
STEPS = [
    "export some",
    "export some",
    "export all",
    "export all",
    "compact",
    "rebuild",
    "erase",
    "erase some",
    "finish erasures",
]
# So many that a key that few events have gets no columns.
MANY = 1_500


@dataclass(frozen=True)
class Case:
    """A question, the events of its log in parts, and what happens after each part.

    `filler` is how many other events come first. `cuts` says whether retention leaves out the first month.
    """

    rpc: str
    request: Message
    parts: Sequence[Sequence[Event]]
    steps: Sequence[Sequence[str]]
    filler: Sequence[Event]
    cuts: bool
    now: datetime
    seed: int

    @property
    def around(self) -> int:
        """The middle of the times of the events."""
        times = sorted(event["t"] for part in self.parts for event in part)
        return times[len(times) // 2] if times else read_utc("2025-01-01T00:00Z")


@st.composite
def cases(draw: st.DrawFn, rpc: str) -> Case:
    """A case for the question of an RPC."""
    request, events, now = draw(QUESTIONS[rpc]())
    random = Random(draw(st.integers(0, 2**32)))
    places = dict(zip(OWN_KEYS, random.sample(PLACES, len(OWN_KEYS)), strict=True))
    others = draw(st.lists(st.tuples(DOCUMENTS, DOCUMENTS), min_size=1, max_size=4))
    moved = [_moved(event, places, *random.choice(others)) for event in events]
    request = _renamed(request, {f"props.{key}": _path(place) for key, place in places.items()})
    for selector in _selectors(request):
        if random.random() < 0.3 and "filter" not in selector:
            selector["filter"] = MessageToDict(draw(FILTERS), preserving_proto_field_name=True)
    parts = _parts(moved, random)
    steps = [[random.choice(STEPS) for _ in range(random.randint(0, 3))] for _ in parts]
    filler = _filler(moved, random) if random.random() < 0.15 else []
    message = ParseDict(request, REQUESTS[rpc]())
    return Case(rpc, message, parts, steps, filler, random.random() < 0.25, now, random.randrange(2**32))


@st.composite
def _trend(draw: st.DrawFn) -> tuple[Event, list[Event], datetime]:
    request, events = draw(trends())
    return _as_dict(request), events, moment(request.range.end.ToMicroseconds())


@st.composite
def _funnel(draw: st.DrawFn) -> tuple[Event, list[Event], datetime]:
    events, request = draw(random_funnels.EVENTS), draw(random_funnels.REQUESTS)
    return request, events, moment(random_funnels.START) + timedelta(days=1)


@st.composite
def _retention(draw: st.DrawFn) -> tuple[Event, list[Event], datetime]:
    request, events, now = draw(random_retention.questions())
    return request, events, now


@st.composite
def _paths(draw: st.DrawFn) -> tuple[Event, list[Event], datetime]:
    events, request = draw(random_paths.EVENTS), draw(random_paths.REQUESTS)
    return _as_dict(request), events, random_paths.START + timedelta(days=3)


QUESTIONS: Mapping[str, Callable[[], st.SearchStrategy[tuple[Event, list[Event], datetime]]]] = {
    "QueryTrend": _trend,
    "QueryFunnel": _funnel,
    "QueryRetention": _retention,
    "QueryPaths": _paths,
}


def _as_dict(message: Message) -> Event:
    return MessageToDict(message, preserving_proto_field_name=True)


def _moved(event: Event, places: Mapping[str, Sequence[str]], props: Event, context: Event) -> Event:
    """The event with its own values where `places` says, among others."""
    documents = {"props": dict(props), "context": dict(context)}
    for key, value in event.get("props", {}).items():
        *above, last = places[key]
        inner: Any = documents
        for part in above:
            found = inner.get(part)
            inner[part] = dict(found) if isinstance(found, dict) else {}
            inner = inner[part]
        inner[last] = value
    return {**event, **documents}


def _path(place: Sequence[str]) -> str:
    root, *keys = place
    return ".".join([root, *(key.replace("\\", "\\\\").replace(".", "\\.") for key in keys)])


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A request as a dict, with other paths."""
    if isinstance(value, dict):
        return {key: _renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, names) for inner in value]
    if isinstance(value, str) and value.startswith("props."):
        first, dot, rest = value.removeprefix("props.").partition(".")
        return names[f"props.{first}"] + dot + rest
    return value


def _selectors(request: Event) -> list[Event]:
    """Those of a request, in which a filter can be put."""
    found = [request[name] for name in ("start", "return", "anchor", "nodes") if name in request]
    parts = [*request.get("series", []), *(steps if isinstance(steps := request.get("steps"), list) else [])]
    return found + [part["selector"] for part in parts if "selector" in part]


def _parts(events: Sequence[Event], random: Random) -> list[list[Event]]:
    ends = sorted(random.randint(0, len(events)) for _ in range(random.randint(0, 3)))
    starts, ends = [0, *ends], [*ends, len(events)]
    return [list(events[start:end]) for start, end in zip(starts, ends, strict=True)]


def _filler(events: Sequence[Event], random: Random) -> list[Event]:
    """Many events of nobody that no question is about."""
    times = [event["t"] for event in events] or [read_utc("2025-01-01T00:00Z")]
    blank = {"name": "$filler", "user_id": None, "anonymous_id": None, "context": {}}
    return [
        {**blank, "t": random.choice(times), "props": {f"common {number % 70}": number, "every": "one"}}
        for number in range(MANY)
    ]
