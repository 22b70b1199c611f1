"""Questions about the events of a project, as Nimbus takes them.

Selectors and filters are messages of `nimbus.v1`, made here in one line each:
`select("purchase", where=all_of(condition("props.plan", "EQUALS", "pro"), condition("props.amount", "GREATER", 10)))`.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from nimbus.v1.catalog_pb2 import ListPropertiesRequest, ListPropertyValuesRequest
from nimbus.v1.funnel_pb2 import FunnelStepQuery, QueryFunnelRequest
from nimbus.v1.paths_pb2 import QueryPathsRequest
from nimbus.v1.people_pb2 import FunnelCell, ListPeopleBehindRequest, PathCell, RetentionCell, TrendCell
from nimbus.v1.question_pb2 import Condition, EventSelector, Filter
from nimbus.v1.retention_pb2 import QueryRetentionRequest
from nimbus.v1.trend_pb2 import QueryTrendRequest, TrendSeriesQuery
from nimbus_client.events import aware
from nimbus_client.options import (
    Events,
    FunnelOptions,
    Measure,
    Operator,
    PathOptions,
    RetentionOptions,
    TrendOptions,
)
from nimbus_client.wire import listed

Question = QueryTrendRequest | QueryFunnelRequest | QueryRetentionRequest | QueryPathsRequest
Cell = TrendCell | FunnelCell | RetentionCell | PathCell

T = TypeVar("T", bound=Message)


def condition(property: str, operator: Operator, *values: str | float | bool) -> Filter:  # noqa: A002 - its name
    """One property compared with values, as in the proto. Raises ValueError for an unknown operator."""
    made = Condition(property=property)
    _set(made, "operator", operator)
    for value in values:
        slot = made.values.add()
        if isinstance(value, bool):
            slot.bool_value = value
        elif isinstance(value, str):
            slot.string_value = value
        else:
            slot.number_value = value
    return Filter(condition=made)


def all_of(*filters: Filter) -> Filter:
    """All of them hold."""
    return Filter(all_of=filters)


def any_of(*filters: Filter) -> Filter:
    """At least one of them holds."""
    return Filter(any_of=filters)


def not_(filter: Filter) -> Filter:  # noqa: A002 - its name in the proto
    """It does not hold."""
    negated = Filter()
    getattr(negated, "not").CopyFrom(filter)
    return negated


def select(*names: str, where: Filter | None = None, label: str = "") -> EventSelector:
    """Events of one of the names, or of any, that match the filter."""
    return EventSelector(names=names, filter=where, label=label)


def series(events: Events = EventSelector(), measure: Measure = "EVENTS", property: str = "") -> TrendSeriesQuery:  # noqa: A002, B008
    """A line of a trend."""
    made = TrendSeriesQuery(selector=_selector(events), property=property)
    _set(made, "measure", measure)
    return made


def step(events: Events, *, optional: bool = False) -> FunnelStepQuery:
    """A step of a funnel."""
    return FunnelStepQuery(selector=_selector(events), optional=optional)


def trend_request(
    project_id: str, lines: Iterable[Events | TrendSeriesQuery], options: TrendOptions
) -> QueryTrendRequest:
    """The request of `trend`. Raises ValueError for what no field can hold."""
    wanted = [line if isinstance(line, TrendSeriesQuery) else series(line) for line in lines]
    return _filled(QueryTrendRequest(project_id=project_id, series=wanted), options)


def funnel_request(
    project_id: str, steps: Iterable[Events | FunnelStepQuery], options: FunnelOptions
) -> QueryFunnelRequest:
    """The request of `funnel`. Raises ValueError for what no field can hold."""
    wanted = [one if isinstance(one, FunnelStepQuery) else step(one) for one in steps]
    return _filled(QueryFunnelRequest(project_id=project_id, steps=wanted), options)


def retention_request(
    project_id: str, begin: Events, come_back: Events, options: RetentionOptions
) -> QueryRetentionRequest:
    """The request of `retention`. Raises ValueError for what no field can hold."""
    request = QueryRetentionRequest(project_id=project_id, start=_selector(begin))
    getattr(request, "return").CopyFrom(_selector(come_back))
    return _filled(request, options)


def paths_request(project_id: str, anchor: Events, options: PathOptions) -> QueryPathsRequest:
    """The request of `paths`. Raises ValueError for what no field can hold."""
    return _filled(QueryPathsRequest(project_id=project_id, anchor=_selector(anchor)), options)


def people_request(
    project_id: str, question: Question, cell: Cell, page_size: int, page_token: str
) -> ListPeopleBehindRequest:
    """The request of `people_behind`."""
    request = ListPeopleBehindRequest(project_id=project_id, page_size=page_size, page_token=page_token)
    for field in (
        *request.DESCRIPTOR.oneofs_by_name["question"].fields,
        *request.DESCRIPTOR.oneofs_by_name["cell"].fields,
    ):
        for message in (question, cell):
            if field.message_type is message.DESCRIPTOR:
                getattr(request, field.name).CopyFrom(message)
    return request


def properties_request(
    project_id: str, names: str | Iterable[str], since: datetime | None, search: str, limit: int
) -> ListPropertiesRequest:
    """The request of `properties`."""
    request = ListPropertiesRequest(project_id=project_id, name=listed(names), search=search, limit=limit)
    if since:
        _set(request, "since", since)
    return request


def values_request(
    project_id: str,
    property: str,  # noqa: A002
    names: str | Iterable[str],
    since: datetime | None,
    search: str,
    limit: int,
) -> ListPropertyValuesRequest:
    """The request of `property_values`."""
    request = ListPropertyValuesRequest(
        project_id=project_id, property=property, name=listed(names), search=search, limit=limit
    )
    if since:
        _set(request, "since", since)
    return request


def _selector(events: Events) -> EventSelector:
    return select(events) if isinstance(events, str) else events


def _filled(request: T, options: Mapping[str, Any]) -> T:
    """The request with options set in it; `last`, `start` and `end` are of its range."""
    for name, value in options.items():
        if name in {"last", "start", "end"}:
            _set(request.range, name, value)  # type: ignore[attr-defined] # every question has one
        else:
            _set(request, name, value)
    return request


def _set(message: Message, name: str, value: Any) -> None:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise ValueError(f"{message.DESCRIPTOR.name} has no {name}.")
    if field.is_repeated:
        getattr(message, name).extend(value)
    elif isinstance(value, datetime):
        moment = Timestamp()
        moment.FromDatetime(aware(value, name))
        getattr(message, name).CopyFrom(moment)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, _enum(field.enum_type, value) if field.enum_type else value)


def _enum(enum: Any, name: str) -> int:
    """The number of a value, whose name may lack the prefix. Raises ValueError with those that there are."""
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    found = enum.values_by_name.get(prefix + name) or enum.values_by_name.get(name)
    if found is None:
        known = ", ".join(value.name.removeprefix(prefix) for value in enum.values[1:])
        raise ValueError(f"{name} is none of {known}.")
    return int(found.number)
