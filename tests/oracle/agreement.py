"""Whether an answer says what the plain reading of its question does. Each check raises AssertionError where not."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from oracle import paths as plain_paths
from oracle.catalog import properties_of
from oracle.filters import Event, text_of, value_of
from oracle.funnel import OTHER, Funnel
from oracle.retention import retention
from oracle.trend import expected_trend

from nimbus.v1.catalog_pb2 import (
    ListEventNamesRequest,
    ListEventNamesResponse,
    ListPropertiesRequest,
    ListPropertiesResponse,
    ListPropertyValuesRequest,
    ListPropertyValuesResponse,
)
from nimbus.v1.funnel_pb2 import QueryFunnelRequest, QueryFunnelResponse
from nimbus.v1.paths_pb2 import QueryPathsRequest, QueryPathsResponse
from nimbus.v1.retention_pb2 import QueryRetentionRequest, QueryRetentionResponse
from nimbus.v1.trend_pb2 import QueryTrendRequest, QueryTrendResponse
from nimbus_server.clock import micros, moment


def check_trend(answer: QueryTrendResponse, request: QueryTrendRequest, timezone: str, events: Sequence[Event]) -> None:
    """Of a trend; `timezone` is the project's."""
    expected = expected_trend(request, timezone, events)
    assert _lines(answer.series) == _lines(expected.series)
    assert _lines(answer.compared) == _lines(expected.compared)


def check_funnel(answer: QueryFunnelResponse, request: QueryFunnelRequest, events: Sequence[Event]) -> None:
    """Of a funnel."""
    funnel = Funnel(request, events)
    assert _said(answer.steps) == _rounded(funnel.steps(funnel.counted))
    _check_times(answer, funnel.seconds_to_convert())
    if request.HasField("breakdown"):
        groups = funnel.groups()
        names = [OTHER if g.is_other else None if g.is_unset else g.value for g in answer.groups]
        assert names == [*groups]
        assert [_said(g.steps) for g in answer.groups] == [_rounded(funnel.steps(some)) for some in groups.values()]
    if request.bucket:
        starts = [bucket.ts.ToMicroseconds() for bucket in answer.buckets]
        ends = [*starts[1:], funnel.end]
        expected = [funnel.in_bucket(start, end) for start, end in zip(starts, ends, strict=True)]
        assert [_said(b.steps) for b in answer.buckets] == [_rounded(funnel.steps(some)) for some in expected]


def check_retention(
    answer: QueryRetentionResponse, request: QueryRetentionRequest, events: Sequence[Event], at: datetime
) -> None:
    """Of retention, answered at a moment."""
    cohorts, mean = retention(request, events, at)
    assert [micros(cohort.start.ToDatetime(UTC)) for cohort in answer.cohorts] == [cohort.start for cohort in cohorts]
    for got, expected in zip(answer.cohorts, cohorts, strict=True):
        assert got.size == len(expected.members)
        assert list(got.returned) == [len(people) for people in expected.returned]
        assert list(got.complete) == expected.complete
        assert list(got.values) == _close(expected.values)
    assert list(answer.mean) == _close(mean)


def check_paths(answer: QueryPathsResponse, request: QueryPathsRequest, events: Sequence[Event]) -> None:
    """Of paths."""
    start, end = request.range.start.ToMicroseconds(), request.range.end.ToMicroseconds()
    found = plain_paths.paths(events, request, start, end)
    steps = request.steps or 3
    edges, _ = plain_paths.edges(found, steps, request.limit or 50)
    shown = [(edge.step, getattr(edge, "from"), edge.to, edge.people, edge.paths) for edge in answer.edges]
    assert shown == [(step, source or "", target or "", *counts) for step, source, target, *counts in edges]
    assert [edge.is_other for edge in answer.edges] == [source is None for _, source, *_ in edges]
    assert [(end.step, end.people, end.paths) for end in answer.ends] == plain_paths.ends(found, steps)


def check_event_names(answer: ListEventNamesResponse, request: ListEventNamesRequest, events: Sequence[Event]) -> None:
    """Of the names of events."""
    times = defaultdict(list)
    for event in events:
        times[event["name"]].append(event["t"])
    names, count = _most_frequent(times, request.search, request.limit)
    expected = ListEventNamesResponse(
        as_of_position=answer.as_of_position, complete_through=answer.complete_through, count=count if names else 0
    )
    for name in names:
        info = expected.names.add(name=name, events=len(times[name]))
        info.first_seen.FromDatetime(moment(min(times[name])))
        info.last_seen.FromDatetime(moment(max(times[name])))
    assert answer == expected


def check_properties(answer: ListPropertiesResponse, request: ListPropertiesRequest, events: Sequence[Event]) -> None:
    """Of properties; `since` is set."""
    times, types = defaultdict(list), defaultdict(set)
    for event in events:
        for path, kind in properties_of(event) if _is_asked(request, event) else ():
            times[path].append(event["t"])
            types[path].add(kind)
    paths, count = _most_frequent(times, request.search, request.limit)
    expected = ListPropertiesResponse(
        as_of_position=answer.as_of_position, complete_through=answer.complete_through, count=count
    )
    for path in paths:
        info = expected.properties.add(property=path, events=len(times[path]), types=sorted(types[path]))
        info.first_seen.FromDatetime(moment(min(times[path])))
        info.last_seen.FromDatetime(moment(max(times[path])))
    assert answer == expected


def check_values(
    answer: ListPropertyValuesResponse, request: ListPropertyValuesRequest, events: Sequence[Event]
) -> None:
    """Of the values of a property; `since` is set."""
    times = defaultdict(list)
    for event in events:
        text = text_of(value_of(request.property, event))
        if text is not None and _is_asked(request, event):
            times[text].append(event["t"])
    values, count = _most_frequent(times, request.search, request.limit)
    expected = ListPropertyValuesResponse(
        as_of_position=answer.as_of_position, complete_through=answer.complete_through, count=count
    )
    for value in values:
        expected.values.add(value=value, events=len(times[value]))
    assert answer == expected


def _is_asked(request: ListPropertiesRequest | ListPropertyValuesRequest, event: Event) -> bool:
    is_named = not request.name or event["name"] in request.name
    return is_named and bool(event["t"] >= request.since.ToMicroseconds())


def _most_frequent(counts: dict[str, list[int]], search: str, limit: int) -> tuple[list[str], int]:
    found = [key for key in counts if search.lower() in key.lower()]
    found.sort(key=lambda key: (-len(counts[key]), key.encode()))
    return found[: limit or 100], len(found)


def _lines(lines: Any) -> list[Any]:
    """Lines of a trend that compare as equal where their numbers differ by a rounding."""

    def number(message: Any, name: str) -> Any:
        return pytest.approx(getattr(message, name), rel=1e-9, abs=1e-9) if message.HasField(name) else None

    return [
        (
            *(line.label, [*line.breakdown], [*line.unset], line.is_other, line.ignored, number(line, "total")),
            [(point.ts.ToMicroseconds(), number(point, "value")) for point in line.points],
        )
        for line in lines
    ]


def _check_times(answer: QueryFunnelResponse, seconds: list[float]) -> None:
    edges, counts = [*answer.time_to_convert.edges_seconds], [*answer.time_to_convert.counts]
    assert sum(counts) == len(seconds)
    assert len(edges) == (len(counts) + 1 if seconds else 0)
    if len(set(seconds)) > 1:
        assert (edges[0], edges[-1]) == (seconds[0], seconds[-1])
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            # Edges are doubles: what lies on one may be in either of its bins.
            inside = sum(low + 1e-6 < one < high - 1e-6 for one in seconds)
            assert inside <= count <= sum(low - 1e-6 <= one <= high + 1e-6 for one in seconds)


def _said(steps: Any) -> list[dict[str, Any]]:
    said_of = [
        MessageToDict(step, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        for step in steps
    ]
    return _rounded([{**one, "count": int(one["count"])} for one in said_of])


def _rounded(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in step.items()
            if value is not None
        }
        for step in steps
    ]


def _close(numbers: Any) -> Any:
    return pytest.approx(list(numbers), nan_ok=True, rel=1e-9, abs=1e-9)
