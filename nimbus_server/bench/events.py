"""Events as an application sends them, made before the clock starts."""

import random
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from nimbus.v1.event_service_pb2 import Event, IngestEventsRequest

NAMES = ["page_view", "click", "signup", "login", "logout", "purchase", "add_to_cart", "search", "share", "error"]
PLANS = ["free", "pro", "team", "enterprise"]
# Between one event and the next.
STEP = timedelta(microseconds=10)
# How far back a repeat reaches.
REPEAT_WITHIN = 10_000


@dataclass(slots=True)
class Events:
    """A sequence of events, each with a ts and a key. A share of `repeats` has come before."""

    repeats: float = 0.0
    made: int = 0
    _run: str = field(default_factory=lambda: secrets.token_hex(4))
    _start: datetime = field(default_factory=lambda: datetime.fromtimestamp(int(time.time()), UTC))
    _random: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - nobody is to be surprised

    def next(self) -> dict[str, Any]:
        """One event, as JSON has it but for `ts`, a datetime."""
        number = self.made
        if number and self._random.random() < self.repeats:
            number = self._random.randrange(max(0, number - REPEAT_WITHIN), number)
        else:
            self.made += 1
        return {
            "name": NAMES[number % 7919 % len(NAMES)],
            "ts": self._start + number * STEP,
            "user_id": f"user-{number * 7919 % 10_007}",
            "idempotency_key": f"{self._run}-{number}",
            "props": {"plan": PLANS[number % 3], "page": f"/items/{number * 31 % 1009}", "amount": number % 500},
        }

    def json_body(self, project_id: str, count: int) -> bytes:
        """A body of POST /v1/events."""
        return orjson.dumps({"project_id": project_id, "events": [self.next() for _ in range(count)]})

    def proto(self, project_id: str, count: int) -> bytes:
        """A serialized IngestEventsRequest."""
        request = IngestEventsRequest(project_id=project_id)
        for _ in range(count):
            event = self.next()
            request.events.append(
                Event(
                    name=event["name"],
                    ts=event["ts"],
                    user_id=event["user_id"],
                    idempotency_key=event["idempotency_key"],
                    props_json=orjson.dumps(event["props"]),
                )
            )
        return request.SerializeToString()
