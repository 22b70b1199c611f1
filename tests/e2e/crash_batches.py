"""Random batches: of 1 to 200 events, with a key and a time, with a key alone, and with neither."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from nimbus.v1.event_service_pb2 import Event, IngestEventsRequest, IngestEventStreamRequest

EVENTS_MAX = 200
NAMES = ["page_view", "click", "signup", "purchase", "search"]

# Ages at most of events, and how likely they are: all the while some come first in a month, whose partition is made.
AGES = {timedelta(minutes=10): 0.98, timedelta(days=60): 0.0198, timedelta(days=2000): 0.0002}


@dataclass(frozen=True, slots=True)
class Batch:
    """Events for a project; `numbers` are theirs in the ledger. One that is not `keyed` must be repeated as signed."""

    project_id: str
    numbers: range
    keyed: bool
    events: list[dict[str, Any]]

    def json(self) -> bytes:
        """The body of POST /v1/events."""
        return orjson.dumps({"project_id": self.project_id, "events": self.events})

    def proto(self) -> bytes:
        """A serialized IngestEventsRequest."""
        return IngestEventsRequest(project_id=self.project_id, events=map(_proto, self.events)).SerializeToString()

    def stream_proto(self) -> bytes:
        """A serialized IngestEventStreamRequest."""
        events = map(_proto, self.events)
        return IngestEventStreamRequest(project_id=self.project_id, events=events).SerializeToString()


def random_size() -> int:
    return random.randint(1, EVENTS_MAX)


def random_batch(project_id: str, numbers: range, *, keyed: bool) -> Batch:
    """Events that are all alike for the server but for their numbers."""
    return Batch(project_id, numbers, keyed, [_event(number, keyed=keyed) for number in numbers])


def _event(number: int, *, keyed: bool) -> dict[str, Any]:
    event: dict[str, Any] = {"name": random.choice(NAMES), "props": {"n": number, "page": f"/items/{number % 1009}"}}
    if random.random() < 0.5:
        event["user_id"] = f"user-{random.randrange(1000)}"
    if keyed or random.random() < 0.5:
        event["idempotency_key"] = f"key-{number}"
    if random.random() < 0.5:
        (back,) = random.choices(list(AGES), list(AGES.values()))
        event["ts"] = datetime.now(UTC) - back * random.random()
    return event


def _proto(event: dict[str, Any]) -> Event:
    fields = {name: value for name, value in event.items() if name != "props"}
    return Event(props_json=orjson.dumps(event["props"]), **fields)
