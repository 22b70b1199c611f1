"""Metrics by time zone, with empty buckets and by name, and the zone that a project has."""

from datetime import UTC, datetime, timedelta

import pytest
from conftest import Account, Stack
from credentials import machine, person
from surface import RPCS
from transports import Fields, Transport, over_native_grpc, over_rest

from nimbus.v1 import metrics_service_pb2 as pb
from nimbus_server.errors import Reason

METRICS = RPCS["MetricsService.QueryMetrics"]
CREATE, UPDATE, GET, LIST = (
    RPCS[f"ProjectService.{name}"] for name in ("CreateProject", "UpdateProject", "GetProject", "ListProjects")
)
BOTH = pytest.mark.parametrize("transport", [over_rest, over_native_grpc])
# In Berlin the 30th of March 2025 has 23 hours and is a Sunday.
EVENTS = [
    ("page_view", "2025-03-29T22:59:59Z"),
    ("page_view", "2025-03-29T23:00:00Z"),
    ("signup", "2025-03-30T21:59:59Z"),
    ("signup", "2025-03-30T22:00:00Z"),
    ("page_view", "2025-04-30T22:00:00Z"),
]


@pytest.fixture
def counted(stack: Stack, account: Account) -> Account:
    """Someone whose project has EVENTS."""
    body = {"project_id": account.project_id, "events": [{"name": name, "ts": ts} for name, ts in EVENTS]}
    outcome = over_rest(stack, RPCS["EventService.IngestEvents"], body, machine(account))
    assert outcome.response.accepted == len(EVENTS)
    return account


def metrics(stack: Stack, account: Account, transport: Transport, **fields: object) -> pb.QueryMetricsResponse:
    outcome = transport(stack, METRICS, {"project_id": account.project_id, **fields}, machine(account))
    assert outcome.failure is None, outcome.failure
    return outcome.response


def shown(series: list[pb.MetricPoint]) -> dict[str, float]:
    return {f"{point.ts.ToDatetime(UTC):%m-%dT%H:%M}": point.value for point in series}


def set_zone(stack: Stack, account: Account, transport: Transport, **fields: object) -> None:
    outcome = transport(stack, UPDATE, {"project_id": account.project_id, **fields}, person(account))
    assert outcome.failure is None, outcome.failure


@BOTH
def test_days_weeks_and_months_begin_at_local_midnight(stack: Stack, counted: Account, transport: Transport) -> None:
    zone = {"timezone": "Europe/Berlin"}
    days = metrics(stack, counted, transport, bucket="1d", **zone)
    assert (days.metric, days.bucket, days.timezone) == ("events.count", "1d", "Europe/Berlin")
    assert shown(days.series) == {"03-28T23:00": 1, "03-29T23:00": 2, "03-30T22:00": 1, "04-30T22:00": 1}
    weeks = metrics(stack, counted, transport, bucket="1w", **zone)
    assert shown(weeks.series) == {"03-23T23:00": 3, "03-30T22:00": 1, "04-27T22:00": 1}
    months = metrics(stack, counted, transport, bucket="1mo", **zone)
    assert shown(months.series) == {"02-28T23:00": 4, "04-30T22:00": 1}
    hours = metrics(stack, counted, transport, bucket="1h", limit=2, **zone)
    assert (hours.timezone, shown(hours.series)) == ("UTC", {"03-30T22:00": 1, "04-30T22:00": 1})


@BOTH
def test_without_a_zone_days_are_those_of_the_project(stack: Stack, counted: Account, transport: Transport) -> None:
    utc = metrics(stack, counted, transport, bucket="1d")
    assert (utc.timezone, shown(utc.series)) == ("UTC", {"03-29T00:00": 2, "03-30T00:00": 2, "04-30T00:00": 1})
    set_zone(stack, counted, transport, timezone="Asia/Kathmandu")
    for who in (machine(counted), person(counted)):
        asked = {"project_id": counted.project_id, "bucket": "1mo"}
        answer = transport(stack, METRICS, asked, who).response
        assert (answer.timezone, shown(answer.series)) == ("Asia/Kathmandu", {"02-28T18:15": 4, "04-30T18:15": 1})
    assert metrics(stack, counted, transport, bucket="1d", timezone="UTC") == utc


@BOTH
def test_with_fill_empty_buckets_are_0(stack: Stack, counted: Account, transport: Transport) -> None:
    asked = {"bucket": "1d", "timezone": "Europe/Berlin", "fill": "zero", "end": "2025-03-31T12:00:00Z"}
    bounded = metrics(stack, counted, transport, start="2025-03-28T12:00:00Z", **asked)
    expected = {"03-27T23:00": 0, "03-28T23:00": 1, "03-29T23:00": 2, "03-30T22:00": 1}
    assert shown(bounded.series) == expected
    unbounded = metrics(stack, counted, transport, limit=6, **asked)
    assert shown(unbounded.series) == {"03-25T23:00": 0, "03-26T23:00": 0} | expected
    newest = metrics(stack, counted, transport, start="2025-03-28T12:00:00Z", limit=2, **asked)
    assert shown(newest.series) == {"03-29T23:00": 2, "03-30T22:00": 1}
    assert not metrics(stack, counted, transport, start="2025-04-01T12:00:00Z", **asked).series


@BOTH
def test_with_fill_and_no_end_the_running_bucket_is_the_last(
    stack: Stack, counted: Account, transport: Transport
) -> None:
    for bucket, width in (("1m", timedelta(minutes=1)), ("1d", timedelta(days=1))):
        before = datetime.now(UTC)
        series = metrics(stack, counted, transport, bucket=bucket, limit=3, fill="zero").series
        last = series[-1].ts.ToDatetime(UTC)
        assert before - width < last <= datetime.now(UTC)
        assert [(p.ts.ToDatetime(UTC), p.value) for p in series] == [(last - n * width, 0) for n in (2, 1, 0)]


@BOTH
def test_by_name_there_is_one_series_a_name(stack: Stack, counted: Account, transport: Transport) -> None:
    asked = {"bucket": "1mo", "group_by": "name"}
    answer = metrics(stack, counted, transport, **asked)
    assert shown(answer.series) == {"03-01T00:00": 4, "04-01T00:00": 1}
    groups = {group.name: shown(group.series) for group in answer.groups}
    assert list(groups.items()) == [("page_view", {"03-01T00:00": 2, "04-01T00:00": 1}), ("signup", {"03-01T00:00": 2})]
    filled = metrics(stack, counted, transport, fill="zero", start=EVENTS[0][1], end=EVENTS[-1][1], **asked)
    assert filled.series == answer.series
    assert shown(filled.groups[1].series) == {"03-01T00:00": 2, "04-01T00:00": 0}
    named = metrics(stack, counted, transport, name=["signup"], **asked)
    assert [group.name for group in named.groups] == ["signup"]
    assert named.groups[0].series == named.series


@BOTH
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"timezone": "Europe/Atlantis"}, "timezone"),
        ({"timezone": "../etc/passwd"}, "timezone"),
        ({"timezone": "right/Europe/Berlin", "bucket": "1d"}, "timezone"),
        ({"bucket": "2w"}, "bucket"),
        ({"fill": "null"}, "fill"),
        ({"group_by": "user_id"}, "group_by"),
        ({"group_by": "name", "limit": 1001}, "limit"),
        ({"fill": "zero", "limit": 10_001}, "limit"),
    ],
)
def test_what_is_not_known_is_refused_by_its_field(
    stack: Stack, account: Account, transport: Transport, fields: Fields, field: str
) -> None:
    failure = transport(stack, METRICS, {"project_id": account.project_id, **fields}, machine(account)).failure
    assert (failure.reason, failure.violations) == (Reason.FIELD_INVALID, (field,))


@BOTH
def test_all_of_the_calendar_can_be_filled(stack: Stack, counted: Account, transport: Transport) -> None:
    for bucket in ("1m", "1h", "1d", "1w", "1mo"):
        asked = {"bucket": bucket, "timezone": "Pacific/Apia", "fill": "zero", "limit": 3}
        first = "0001-01-01T00:00:00Z"
        assert not metrics(stack, counted, transport, start=first, end=first, **asked).series
        assert len(metrics(stack, counted, transport, start=first, **asked).series) == 3
        assert len(metrics(stack, counted, transport, end="9999-12-31T23:59:59Z", **asked).series) == 3


@BOTH
def test_a_project_has_a_time_zone(stack: Stack, account: Account, transport: Transport) -> None:
    who, project = person(account), {"project_id": account.project_id}
    assert transport(stack, GET, project, who).response.timezone == "UTC"
    created = transport(stack, CREATE, {"name": "abroad", "timezone": "America/Havana"}, who).response.project
    assert (created.name, created.timezone) == ("abroad", "America/Havana")
    set_zone(stack, account, transport, timezone="Europe/Berlin")
    set_zone(stack, account, transport, name="renamed")
    found = transport(stack, GET, project, who).response
    assert (found.name, found.timezone) == ("renamed", "Europe/Berlin")
    set_zone(stack, account, transport, name="again", timezone="UTC")
    listed = transport(stack, LIST, {}, who).response.items
    assert [(p.name, p.timezone) for p in listed] == [("again", "UTC"), ("abroad", "America/Havana")]


@BOTH
@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({}, Reason.FIELD_REQUIRED, "name"),
        ({"name": ""}, Reason.FIELD_REQUIRED, "name"),
        ({"name": " ", "timezone": "UTC"}, Reason.FIELD_REQUIRED, "name"),
        ({"timezone": "Mars/Olympus"}, Reason.FIELD_INVALID, "timezone"),
        ({"name": "x", "timezone": "europe/berlin"}, Reason.FIELD_INVALID, "timezone"),
    ],
)
def test_an_update_needs_a_name_or_a_zone_and_changes_nothing_else(
    stack: Stack, account: Account, transport: Transport, fields: Fields, reason: Reason, field: str
) -> None:
    who, project = person(account), {"project_id": account.project_id}
    before = transport(stack, GET, project, who).response
    failure = transport(stack, UPDATE, {**project, **fields}, who).failure
    assert (failure.reason, failure.violations) == (reason, (field,))
    assert transport(stack, GET, project, who).response == before
