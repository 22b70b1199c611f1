"""What QueryPaths means, said plainly: one person at a time, one anchor at a time, event by event."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from oracle.filters import Event, matches, text_of, value_of

from nimbus.v1.paths_pb2 import PATH_DIRECTION_BEFORE, QueryPathsRequest

SECOND = 1_000_000
HALF_AN_HOUR = 1_800 * SECOND
A_DAY = 86_400 * SECOND
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

# A person, and the nodes of one path of theirs, the anchor's first.
Path = tuple[str, list[str]]
# Step, from, to (None for the rest of the step), people, paths.
Edge = tuple[int, str | None, str | None, int, int]


def paths(events: Sequence[Event], request: QueryPathsRequest, start: int, end: int) -> list[Path]:
    """Every path of an anchor in the range."""
    by_person: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda e: (e["t"], e["seq"])):
        person = event.get("user_id") if event.get("user_id") is not None else event.get("anonymous_id")
        if person is not None:
            by_person[person].append(event)
    found = []
    for person, theirs in by_person.items():
        for place, event in enumerate(theirs):
            if matches(request.anchor, event) and start <= event["t"] < end:
                path = follow(theirs, place, request)
                if path:
                    found.append((person, path))
    return found


def follow(theirs: Sequence[Event], place: int, request: QueryPathsRequest) -> list[str]:
    """The path that begins at one of a person's events; none where that has no node."""
    anchor = theirs[place]
    first = node_of(anchor, request)
    if first is None:
        return []
    path = [first]
    backwards = request.direction == PATH_DIRECTION_BEFORE
    rest = list(reversed(theirs[:place])) if backwards else list(theirs[place + 1 :])
    before = anchor
    for event in rest:
        if len(path) > (request.steps or 3):
            break
        if request.within:
            if abs(event["t"] - anchor["t"]) > int(request.within[:-1]) * UNITS[request.within[-1]] * SECOND:
                break
        elif abs(event["t"] - before["t"]) > HALF_AN_HOUR or abs(event["t"] - anchor["t"]) > A_DAY:
            break
        before = event
        node = node_of(event, request)
        collapses = request.collapse_repeats or not request.HasField("collapse_repeats")
        if node is None or (collapses and node == path[-1]):
            continue
        path.append(node)
    return path


def node_of(event: Event, request: QueryPathsRequest) -> str | None:
    """The node that an event is, None where it is none."""
    if matches(request.anchor, event) or matches(request.nodes, event):
        return text_of(value_of(request.node or "name", event))
    return None


def edges(found: Sequence[Path], steps: int, limit: int) -> tuple[list[Edge], list[tuple[int, str | None, str | None]]]:
    """The edges of an answer, and those that its `other` edges stand for."""
    shown: list[Edge] = []
    hidden = []
    for step in range(1, steps + 1):
        taken = [(path[step - 1], path[step], person) for person, path in found if len(path) > step]
        counts = Counter((source, target) for source, target, _ in taken)
        ranked = sorted(counts, key=lambda edge: (-counts[edge], edge[0].encode(), edge[1].encode()))
        for edge in ranked[:limit]:
            people = {person for source, target, person in taken if (source, target) == edge}
            shown.append((step, *edge, len(people), counts[edge]))
        rest = ranked[limit:]
        if rest:
            people = {person for source, target, person in taken if (source, target) in rest}
            shown.append((step, None, None, len(people), sum(counts[edge] for edge in rest)))
            hidden += [(step, *edge) for edge in rest]
    return shown, hidden


def ends(found: Sequence[Path], steps: int) -> list[tuple[int, int, int]]:
    """Step, people and paths that ended there, for every step."""
    ended: dict[int, list[str]] = {step: [] for step in range(steps + 1)}
    for person, path in found:
        ended[len(path) - 1].append(person)
    return [(step, len(set(people)), len(people)) for step, people in ended.items()]


def people(found: Sequence[Path], step: int, wanted: Sequence[tuple[str | None, str | None]]) -> set[str]:
    """The people whose paths take one of the wanted edges at a step."""
    return {person for person, path in found if len(path) > step and (path[step - 1], path[step]) in wanted}
