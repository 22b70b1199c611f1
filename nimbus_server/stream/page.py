"""A stretch of a log, encoded once for all who want it in the same shape."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from nimbus_server.stream.event import StreamedEvent
from nimbus_server.stream.filter import EventFilter, SeenEvent

# Of the events in a message. What one reader makes the server hold is a few of these.
MESSAGE_BYTES_MAX = 128 * 1024
BATCH_EVENTS_MAX = 500
# More than so many of them, or of so many bytes, are encoded in a thread, so that others get their turn.
EVENTS_AT_ONCE = 50
BYTES_AT_ONCE = 128 * 1024
# Two at a time: one that takes long keeps nobody else waiting, and more would only take Python from each other.
_threads = ThreadPoolExecutor(2, "pages")
# For which events are compared with filters before others get their turn.
MATCH_SECONDS = 0.002
# What an event takes in memory beside its JSON.
EVENT_OVERHEAD_BYTES = 700
# Of a page in all shapes together: in more of them than that it is encoded anew for each reader.
ENCODED_BYTES_MAX = 4 * 1024 * 1024
# What a shape takes in memory in which nothing of a page is sent, and what a filter does that lets nothing through.
SHAPE_OVERHEAD_BYTES = 500
FILTER_OVERHEAD_BYTES = 150


@dataclass(frozen=True)
class Form:
    """How a stream looks on the wire.

    `batch` encodes events of a project and the position reached with them, `heartbeat` a position alone.
    """

    batch: Callable[[UUID, Sequence[StreamedEvent], int], bytes]
    heartbeat: Callable[[int], bytes]


@dataclass(frozen=True)
class Shape:
    """All that makes what one subscriber is sent differ from what another one is."""

    form: Form
    filter: EventFilter
    batch_events_max: int = BATCH_EVENTS_MAX

    @cached_property
    def _hash(self) -> int:
        return hash((self.form, self.filter, self.batch_events_max))

    # Every message to every subscriber is looked up by it.
    def __hash__(self) -> int:
        return self._hash


class Message(NamedTuple):
    """A message as it goes out, and the position reached with it."""

    data: bytes
    position: int


@dataclass(eq=False)
class Page:
    """The events of a log behind position `after` up to `last`, or those of them that a filter lets through.

    `matching` is what is known of which of them a filter lets through. `size` is about how many bytes all of it takes,
    with what is encoded; `on_growth` is told by how much that grows.
    """

    project_id: UUID
    after: int
    last: int
    events: Sequence[StreamedEvent]
    on_growth: Callable[[int], None] = lambda _: None
    matching: dict[EventFilter, Sequence[StreamedEvent]] = field(default_factory=dict)
    size: int = field(init=False)
    _encoded: dict[Shape, list[Message]] = field(init=False, default_factory=dict)
    _encoding: dict[Shape, asyncio.Task[list[Message]]] = field(init=False, default_factory=dict)
    _encoded_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.size = sum(event.json_characters + EVENT_OVERHEAD_BYTES for event in self.events)

    def behind(self, position: int) -> "Page":
        """What of it lies behind a position."""
        return Page(self.project_id, position, self.last, [e for e in self.events if e.seq > position])

    async def match(self, filters: Iterable[EventFilter]) -> Mapping[EventFilter, Sequence[StreamedEvent]]:
        """Which events each of the filters lets through, found out for all of them together."""
        found: dict[EventFilter, list[StreamedEvent]] = {which: [] for which in filters}
        if not found:
            return found
        clock = asyncio.get_running_loop().time
        until = clock() + MATCH_SECONDS
        for event in self.events:
            seen = SeenEvent(event)
            for which, events in found.items():
                if which.matches(seen):
                    events.append(event)
                if clock() > until:
                    await asyncio.sleep(0)
                    until = clock() + MATCH_SECONDS
        self.matching.update(found)
        self._grow(sum(FILTER_OVERHEAD_BYTES + 8 * len(events) for events in found.values()))
        return found

    async def messages(self, shape: Shape) -> list[Message]:
        """The page in a shape: none where nothing matches."""
        messages = self._encoded.get(shape)
        if messages is not None:
            return messages
        if len(self.events) <= EVENTS_AT_ONCE and self.size <= BYTES_AT_ONCE:
            return self._keep(shape, self._encode(shape))
        encoding = self._encoding.get(shape)
        if encoding is None:
            encoding = self._encoding[shape] = asyncio.create_task(self._encode_apart(shape))
        # Whoever asked first may go away; the others still want it.
        return await asyncio.shield(encoding)

    async def _encode_apart(self, shape: Shape) -> list[Message]:
        try:
            loop = asyncio.get_running_loop()
            return self._keep(shape, await loop.run_in_executor(_threads, self._encode, shape))
        finally:
            del self._encoding[shape]

    def _keep(self, shape: Shape, messages: list[Message]) -> list[Message]:
        growth = sum(len(message.data) for message in messages) + SHAPE_OVERHEAD_BYTES
        if self._encoded_bytes + growth <= ENCODED_BYTES_MAX:
            self._encoded[shape] = messages
            self._encoded_bytes += growth
            self._grow(growth)
        return messages

    def _grow(self, growth: int) -> None:
        self.size += growth
        self.on_growth(growth)

    def _encode(self, shape: Shape) -> list[Message]:
        matching = self.matching.get(shape.filter)
        if matching is None:
            matching = [event for event in self.events if shape.filter.matches(SeenEvent(event))]
        parts = list(in_parts(matching, shape.batch_events_max))
        # The last one reaches the end of the page, whatever does not match there.
        reached = [*(part[-1].seq for part in parts[:-1]), self.last]
        return [
            Message(shape.form.batch(self.project_id, part, position), position)
            for part, position in zip(parts, reached, strict=False)
        ]


def in_parts(events: Sequence[StreamedEvent], count_max: int) -> list[Sequence[StreamedEvent]]:
    """The events in parts that a message may have."""
    parts: list[Sequence[StreamedEvent]] = []
    start = size = 0
    for place, event in enumerate(events):
        length = event.json_characters
        if place > start and (place - start == count_max or size + length > MESSAGE_BYTES_MAX):
            parts.append(events[start:place])
            start, size = place, 0
        size += length
    if start < len(events):
        parts.append(events[start:])
    return parts
