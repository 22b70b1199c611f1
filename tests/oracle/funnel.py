"""What a funnel means, said as plainly as can be: one person at a time, one start at a time, no SQL.

An event is a dict {seq, t, name, user_id, anonymous_id, props, context}. The request says everything that it can say:
its range has a start and an end, and no preset or default fills in anything.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from oracle.filters import matches, text_of, value_of

from nimbus.v1.funnel_pb2 import (
    FunnelAttribution,
    FunnelCompletes,
    FunnelCounting,
    FunnelEntry,
    FunnelOnExclusion,
    FunnelOrder,
    QueryFunnelRequest,
)

Event = Mapping[str, Any]
LENGTHS = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
OTHER = object()


@dataclass
class Attempt:
    """The event of each step, None where it is not done; `ends` is the place behind which a new one may begin."""

    person: str
    events: list[Event | None]
    ends: tuple[int, int]
    is_hit: bool = False

    @property
    def reached(self) -> int:
        return sum(event is not None for event in self.events)

    @property
    def taken(self) -> list[Event]:
        return sorted((event for event in self.events if event is not None), key=place)


def place(event: Event) -> tuple[int, int]:
    return event["t"], event["seq"]


def micros_of(length: str) -> int:
    return int(length[:-1]) * LENGTHS[length[-1]]


class Funnel:
    """The attempts that count, and what is said of them."""

    def __init__(self, request: QueryFunnelRequest, events: Iterable[Event]) -> None:
        self.request = request
        self.start = request.range.start.ToMicroseconds()
        self.end = request.range.end.ToMicroseconds()
        self.within = micros_of(request.within)
        self.tie = request.tie_seconds * 1_000_000
        self.optional = next((number for number, step in enumerate(request.steps) if step.optional), None)
        self.drops = request.on_exclusion == FunnelOnExclusion.FUNNEL_ON_EXCLUSION_DROP
        in_range = request.completes == FunnelCompletes.FUNNEL_COMPLETES_IN_RANGE
        until = self.end if in_range else self.end + self.within
        people: dict[str, list[Event]] = defaultdict(list)
        for event in sorted(events, key=place):
            person = event["user_id"] if event["user_id"] is not None else event["anonymous_id"]
            if person is not None and self.start <= event["t"] < until:
                people[person].append(event)
        self.counted = [attempt for person, own in people.items() for attempt in self.of_person(person, own)]

    # Attempts.

    def of_person(self, person: str, events: list[Event]) -> list[Attempt]:
        counting = self.request.counting
        if counting == FunnelCounting.FUNNEL_COUNTING_TOTALS:
            found = self.one_after_another(person, events)
        elif counting == FunnelCounting.FUNNEL_COUNTING_SESSIONS:
            found = [attempt for part in sessions(events) for attempt in self.best(person, part)]
        else:
            found = self.best(person, events)
        return [attempt for attempt in found if not (self.drops and attempt.is_hit)]

    def one_after_another(self, person: str, events: list[Event]) -> list[Attempt]:
        found: list[Attempt] = []
        for start in self.starts(events):
            if not found or place(start) > found[-1].ends:
                found.append(self.attempt(person, events, start))
        return found

    def best(self, person: str, events: list[Event]) -> list[Attempt]:
        starts = self.starts(events)
        if self.request.entry == FunnelEntry.FUNNEL_ENTRY_FIRST:
            starts = starts[:1]
        attempts = [self.attempt(person, events, start) for start in starts]
        # max() takes the first, which is the earliest, of those that get equally far.
        return [max(attempts, key=self.required_reached)] if attempts else []

    def required_reached(self, attempt: Attempt) -> int:
        return sum(event is not None for number, event in enumerate(attempt.events) if number != self.optional)

    def is_step(self, number: int, event: Event) -> bool:
        return matches(self.request.steps[number].selector, event) and None not in self.held(event)

    def held(self, event: Event) -> list[str | None]:
        return [text_of(value_of(path, event)) for path in self.request.hold_constant]

    def starts(self, events: list[Event]) -> list[Event]:
        is_unordered = self.request.order == FunnelOrder.FUNNEL_ORDER_UNORDERED
        steps = range(len(self.request.steps)) if is_unordered else range(1)
        return [e for e in events if e["t"] < self.end and any(self.is_step(number, e) for number in steps)]

    def attempt(self, person: str, events: list[Event], start: Event) -> Attempt:
        if self.request.order == FunnelOrder.FUNNEL_ORDER_STRICT:
            return self.strict(person, events, start)
        closes = (start["t"] + self.within, 2**63)
        if self.request.order == FunnelOrder.FUNNEL_ORDER_UNORDERED:
            return self.unordered(person, [e for e in events if place(start) <= place(e) <= closes], start, closes)
        return self.ordered(person, [e for e in events if place(e) <= closes], start, closes)

    def strict(self, person: str, events: list[Event], start: Event) -> Attempt:
        done = [start]
        for number, event in enumerate(events[events.index(start) + 1 :], start=1):
            if number == len(self.request.steps) or event["t"] > start["t"] + self.within:
                break
            if not self.is_step(number, event) or self.held(event) != self.held(start):
                break
            done.append(event)
        return Attempt(person, self.filled(done), place(done[-1]))

    def unordered(self, person: str, events: list[Event], start: Event, closes: tuple[int, int]) -> Attempt:
        done: list[Event] = []
        for number in range(len(self.request.steps)):
            fitting = [e for e in events if self.is_step(number, e) and self.held(e) == self.held(start)]
            done += [e for e in fitting if e not in done][:1]
        done.sort(key=place)
        ends = place(done[-1]) if len(done) == len(self.request.steps) else closes
        return Attempt(person, self.filled(done), ends)

    def ordered(self, person: str, events: list[Event], start: Event, closes: tuple[int, int]) -> Attempt:
        done: dict[int, Event] = {0: start}
        last = 0
        for number in range(1, len(self.request.steps)):
            if number == self.optional:
                continue
            event = self.next_step(number, events, done, last)
            if event is None or self.is_stopped(number, event, events, done):
                break
            done[number], last = event, number
        if self.optional is not None and self.optional - 1 in done:
            event = self.next_step(self.optional, events, done, self.optional - 1)
            following = done.get(self.optional + 1)
            is_in_time = event is not None and (
                following is None
                or (event["t"] <= following["t"] + self.tie if self.tie else place(event) < place(following))
            )
            if is_in_time and not self.is_stopped(self.optional, event, events, done):
                done[self.optional] = event
        hits = self.hits(events, done)
        is_complete = len(self.request.steps) - 1 in done
        ends = [max(map(place, done.values())) if is_complete else closes, *map(place, hits)]
        attempt = [done.get(number) for number in range(len(self.request.steps))]
        return Attempt(person, attempt, min(ends), bool(hits))

    def next_step(self, number: int, events: list[Event], done: dict[int, Event], last: int) -> Event | None:
        for event in events:
            follows = event["t"] >= done[last]["t"] - self.tie if self.tie else place(event) > place(done[last])
            is_new = event not in done.values()
            if follows and is_new and self.is_step(number, event) and self.held(event) == self.held(done[0]):
                return event
        return None

    def excluding(self, index: int, events: list[Event], done: dict[int, Event]) -> Event | None:
        """The first event of an exclusion after the step that begins it."""
        exclusion = self.request.exclusions[index]
        begins = done.get(exclusion.from_step - 1)
        after = [e for e in events if begins and place(e) > place(begins) and matches(exclusion.selector, e)]
        return after[0] if after else None

    def is_stopped(self, number: int, event: Event, events: list[Event], done: dict[int, Event]) -> bool:
        for index, exclusion in enumerate(self.request.exclusions):
            found = self.excluding(index, events, done)
            is_between = exclusion.from_step - 1 < number <= exclusion.to_step - 1
            if not self.drops and found and is_between and place(found) < place(event):
                return True
        return False

    def hits(self, events: list[Event], done: dict[int, Event]) -> list[Event]:
        hits = []
        for index, exclusion in enumerate(self.request.exclusions):
            found, to_step = self.excluding(index, events, done), done.get(exclusion.to_step - 1)
            if found and (to_step is None or place(found) < place(to_step)):
                hits.append(found)
        return hits

    def filled(self, done: Sequence[Event]) -> list[Event | None]:
        return [*done, *[None] * (len(self.request.steps) - len(done))]

    # What is said of them.

    def steps(self, attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
        return [self.step(number, attempts) for number in range(len(self.request.steps))]

    def step(self, number: int, attempts: Sequence[Attempt]) -> dict[str, Any]:
        before = number - 2 if number - 1 == self.optional else number - 1
        selector = self.request.steps[number].selector
        counts = [sum(a.events[other] is not None for a in attempts) for other in range(len(self.request.steps))]
        said: dict[str, Any] = {
            "label": selector.label or ", ".join(dict.fromkeys(selector.names)) or "All events",
            "count": counts[number],
            "of_previous": share(counts[number], counts[before] if number else counts[number]),
            "of_first": share(counts[number], counts[0]),
        }
        if number and counts[number]:
            since_before = [self.between(a, before, number) for a in attempts if a.events[number]]
            since_first = [self.between(a, 0, number) for a in attempts if a.events[number]]
            said |= {"median_seconds": median(since_before), "mean_seconds": mean(since_before)}
            said["median_seconds_from_first"] = median(since_first)
        return said

    @staticmethod
    def between(attempt: Attempt, first: int, last: int) -> float:
        one, other = attempt.events[first], attempt.events[last]
        assert one is not None
        assert other is not None
        return max(0, other["t"] - one["t"]) / 1_000_000

    def seconds_to_convert(self) -> list[float]:
        last = len(self.request.steps) - 1
        return sorted(self.between(a, 0, last) for a in self.counted if a.events[last])

    def value(self, attempt: Attempt) -> str | None:
        breakdown = self.request.breakdown
        if breakdown.attribution == FunnelAttribution.FUNNEL_ATTRIBUTION_ENTRY:
            events = [attempt.events[0]]
        elif breakdown.attribution == FunnelAttribution.FUNNEL_ATTRIBUTION_STEP:
            events = [attempt.events[breakdown.step - 1]]
        else:
            events = [e for e in attempt.taken if value_of(breakdown.property, e) is not None]
            is_last = breakdown.attribution == FunnelAttribution.FUNNEL_ATTRIBUTION_LAST_TOUCH
            events = events[-1:] if is_last else events[:1]
        event = events[0] if events else None
        return text_of(value_of(breakdown.property, event)) if event else None

    def groups(self, most: int = 25) -> dict[Any, list[Attempt]]:
        """Attempts by value, in the order of the answer; those of OTHER come last."""
        values = [(self.value(attempt), attempt) for attempt in self.counted]
        by_value: dict[Any, list[Attempt]] = defaultdict(list)
        for value, attempt in values:
            by_value[value].append(attempt)
        order = sorted(by_value, key=lambda v: (-len(by_value[v]), v is None, (v or "").encode()))
        groups: dict[Any, list[Attempt]] = {value: by_value[value] for value in order[:most]}
        rest = [attempt for value in order[most:] for attempt in by_value[value]]
        return groups | ({OTHER: rest} if rest else {})

    def in_bucket(self, start: int, end: int) -> list[Attempt]:
        return [attempt for attempt in self.counted if start <= (attempt.events[0] or {})["t"] < end]


def sessions(events: list[Event]) -> list[list[Event]]:
    parts: list[list[Event]] = []
    for event in events:
        if not parts or event["t"] - parts[-1][-1]["t"] > 30 * LENGTHS["m"]:
            parts.append([])
        parts[-1].append(event)
    return parts


def furthest_of_all_chains(funnel: Funnel, events: list[Event], start: Event) -> int:
    """How many steps are done at most from a start, whichever of all events are taken for them."""

    def further(number: int, last: Event) -> int:
        if number == len(funnel.request.steps):
            return number
        return max(
            (
                further(number + 1, event)
                for event in events
                if place(event) > place(last)
                and event["t"] <= start["t"] + funnel.within
                and funnel.is_step(number, event)
                and funnel.held(event) == funnel.held(start)
            ),
            default=number,
        )

    return further(1, start)


def share(count: int, whole: int) -> float | None:
    return count / whole if whole else None
