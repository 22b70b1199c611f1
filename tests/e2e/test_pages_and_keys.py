"""Pages follow each other without gap or repeat to the end, and a rotated key dies when it should."""

import json
from collections.abc import Iterator

import pytest
from conftest import Account, Stack
from credentials import bearer, machine, person, signed
from outcomes import Failure
from surface import RPCS
from transports import Transport, over_grpc_web, over_native_grpc, over_rest, send

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.errors import Reason

INGEST, LIST = RPCS["EventService.IngestEvents"], RPCS["EventService.ListEvents"]
CREATE, PROJECTS = RPCS["ProjectService.CreateProject"], RPCS["ProjectService.ListProjects"]
BOTH = [over_rest, over_native_grpc]
COUNT = 403


@pytest.fixture
def filled(stack: Stack, account: Account) -> Account:
    """Someone with events, many of which share a ts."""
    events = [{"name": f"e{i}", "ts": f"2026-01-02T03:04:{i % 7:02}Z"} for i in range(COUNT)]
    body = {"project_id": account.project_id, "events": events}
    assert over_rest(stack, INGEST, body, machine(account)).response.accepted == COUNT
    return account


def page(stack: Stack, account: Account, transport: Transport, **fields: object) -> pb.ListEventsResponse:
    outcome = transport(stack, LIST, {"project_id": account.project_id, **fields}, machine(account))
    assert outcome.failure is None, outcome.failure
    return outcome.response


def by_cursor(stack: Stack, account: Account, transport: Transport, limit: int) -> Iterator[pb.ListEventsResponse]:
    cursor: dict[str, str] = {}
    while True:
        response = page(stack, account, transport, limit=limit, **cursor)
        yield response
        if not response.HasField("next_cursor"):
            return
        cursor = {
            "after_ts": response.next_cursor.after_ts.ToJsonString(),
            "after_id": response.next_cursor.after_id,
        }


@pytest.mark.parametrize("transport", BOTH)
@pytest.mark.parametrize("limit", [50, 200])
def test_cursor_and_offset_walk_the_same_list(stack: Stack, filled: Account, transport: Transport, limit: int) -> None:
    pages = list(by_cursor(stack, filled, transport, limit))
    walked = [item for response in pages for item in response.items]
    assert len({item.id for item in walked}) == len(walked) == COUNT
    places = [(item.ts.ToNanoseconds(), item.id) for item in walked]
    assert places == sorted(places, reverse=True)
    assert {item.seq for item in walked} == set(range(1, COUNT + 1))
    assert [len(response.items) for response in pages] == [limit] * (COUNT // limit) + [COUNT % limit]
    assert pages[0].count == COUNT
    assert not any(response.HasField(field) for response in pages[1:] for field in ("count", "limit", "offset"))
    offsets = range(0, COUNT, limit)
    skipped = [page(stack, filled, transport, limit=limit, offset=offset).items for offset in offsets]
    assert [item.id for items in skipped for item in items] == [item.id for item in walked]


def test_events_that_come_in_between_shift_no_cursor(stack: Stack, filled: Account) -> None:
    first = page(stack, filled, over_rest, limit=100)
    newer = {"project_id": filled.project_id, "events": [{"name": "newer", "ts": "2026-01-02T03:05:00Z"}] * 5}
    assert over_rest(stack, INGEST, newer, machine(filled)).response.accepted == 5
    cursor = {"after_ts": first.next_cursor.after_ts.ToJsonString(), "after_id": first.next_cursor.after_id}
    second = page(stack, filled, over_rest, limit=100, **cursor)
    assert not {item.id for item in first.items} & {item.id for item in second.items}
    assert "newer" not in {item.name for item in second.items}


def test_a_page_that_ends_the_list_has_no_cursor(stack: Stack, filled: Account) -> None:
    assert not page(stack, filled, over_rest, limit=200, offset=COUNT - 200).HasField("next_cursor")
    assert page(stack, filled, over_rest, limit=200, offset=COUNT - 201).HasField("next_cursor")


@pytest.mark.parametrize("transport", BOTH)
@pytest.mark.parametrize("limit", [1, 200])
def test_the_edges_of_limit_are_good(stack: Stack, filled: Account, transport: Transport, limit: int) -> None:
    assert len(page(stack, filled, transport, limit=limit).items) == limit


REFUSED = [
    ({"limit": 0}, Reason.FIELD_INVALID, "limit"),
    ({"limit": 201}, Reason.FIELD_INVALID, "limit"),
    ({"offset": -1}, Reason.FIELD_INVALID, "offset"),
    ({"offset": 10_001}, Reason.FIELD_INVALID, "offset"),
    ({"after_ts": "2026-01-01T00:00:00Z"}, Reason.FIELD_REQUIRED, "after_id"),
    ({"after_id": "00000000-0000-0000-0000-000000000000"}, Reason.FIELD_REQUIRED, "after_ts"),
    ({"after_ts": "2026-01-01T00:00:00Z", "after_id": "x"}, Reason.FIELD_INVALID, "after_id"),
    (
        {"after_ts": "2026-01-01T00:00:00Z", "after_id": "00000000-0000-0000-0000-000000000000", "offset": 0},
        Reason.FIELD_INVALID,
        "offset",
    ),
    ({"props": "[1]"}, Reason.FIELD_INVALID, "props"),
    ({"user_id": ""}, Reason.FIELD_REQUIRED, "user_id"),
]


@pytest.mark.parametrize("transport", BOTH)
def test_pages_that_can_not_be_are_refused_by_field(stack: Stack, account: Account, transport: Transport) -> None:
    for fields, reason, field in REFUSED:
        failure = transport(stack, LIST, {"project_id": account.project_id, **fields}, person(account)).failure
        assert failure is not None, fields
        assert (failure.reason, failure.violations) == (reason, (field,)), fields


@pytest.mark.parametrize("transport", BOTH)
def test_projects_are_paged_to_the_end(stack: Stack, account: Account, transport: Transport) -> None:
    for number in range(6):
        assert over_rest(stack, CREATE, {"name": f"p{number}"}, person(account)).failure is None
    found, sizes, token = [], [], ""
    while True:
        fields = {"page_size": 3, "page_token": token} if token else {"page_size": 3}
        response = transport(stack, PROJECTS, fields, person(account)).response
        assert response.count == len(response.items)
        found += [project.name for project in response.items]
        sizes.append(response.count)
        token = response.next_page_token
        if not token:
            break
    assert found == ["a project", "p0", "p1", "p2", "p3", "p4", "p5"]
    assert sizes == [3, 3, 1]
    exact = transport(stack, PROJECTS, {"page_size": 7}, person(account)).response
    assert (exact.count, exact.next_page_token) == (7, "")
    for wrong in ({"page_size": 1001}, {"page_size": -1}, {"page_token": "x"}, {"page_token": "bnVsbA=="}):
        failure = transport(stack, PROJECTS, wrong, person(account)).failure
        assert failure is not None
        assert (failure.reason, failure.violations) == (Reason.FIELD_INVALID, tuple(wrong))


def ingest_with(stack: Stack, account: Account, key_id: str, secret: str) -> Failure | None:
    """By every way in, which must agree, and reach both workers."""
    body = {"project_id": account.project_id, "events": [{"name": "x"}]}
    ways = (over_rest, over_native_grpc, over_grpc_web) * 2
    failures = [way(stack, INGEST, body, signed(key_id, secret)).failure for way in ways]
    assert len({failure and failure.reason for failure in failures}) == 1
    return failures[0]


@pytest.mark.parametrize("route", ["rotate-keys", "rotate-key"])
def test_a_rotated_key_is_dead_at_once(stack: Stack, account: Account, route: str) -> None:
    answer = send(stack, "POST", f"/v1/projects/{account.project_id}/{route}", b"", account.bearer)
    rotated = answer.json
    assert rotated["api_key_id"] == rotated["project"]["api_key_id"] != account.api_key_id
    failure = ingest_with(stack, account, account.api_key_id, account.api_key_secret)
    assert failure is not None
    assert failure.reason == Reason.API_KEY_UNKNOWN
    assert ingest_with(stack, account, rotated["api_key_id"], rotated["api_key_secret"]) is None
    wrong_pair = ingest_with(stack, account, rotated["api_key_id"], account.api_key_secret)
    assert wrong_pair is not None
    assert wrong_pair.reason == Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize("transport", BOTH)
def test_a_grace_that_was_promised_holds_until_a_rotation_without(
    stack: Stack, account: Account, transport: Transport
) -> None:
    rotate = RPCS["ProjectService.RotateKeys"]
    keys = [(account.api_key_id, account.api_key_secret)]
    for _ in range(2):
        fields = {"project_id": account.project_id, "grace_seconds": 604_800}
        rotated = transport(stack, rotate, fields, bearer(account.access_token)).response
        keys.append((rotated.api_key_id, rotated.api_key_secret))
    oldest, previous, newest = (ingest_with(stack, account, *key) for key in keys)
    assert (oldest, previous, newest) == (None, None, None)
    without_grace = transport(stack, rotate, {"project_id": account.project_id}, person(account)).response
    for key in keys:
        dead = ingest_with(stack, account, *key)
        assert dead is not None
        assert dead.reason == Reason.API_KEY_UNKNOWN
    assert ingest_with(stack, account, without_grace.api_key_id, without_grace.api_key_secret) is None


@pytest.mark.parametrize("grace", [-1, 604_801, 2**31, "soon", 1.5, [], {}])
def test_a_wrong_grace_kills_no_key(stack: Stack, account: Account, grace: object) -> None:
    path = f"/v1/projects/{account.project_id}/rotate-keys"
    for body in ({"grace_seconds": grace}, {"grace_second": 60}):
        answer = send(stack, "POST", path, json.dumps(body).encode(), account.bearer)
        assert answer.status == 400
    assert ingest_with(stack, account, account.api_key_id, account.api_key_secret) is None


@pytest.mark.parametrize("lost", ["consumers/..", "consumers/%2e%2e", "", "consumers/../"])
def test_a_path_that_has_lost_its_end_deletes_nothing(stack: Stack, account: Account, lost: str) -> None:
    path = f"/v1/projects/{account.project_id}/{lost}"
    assert send(stack, "DELETE", path, None, account.bearer).status == 404
    assert send(stack, "GET", f"/v1/projects/{account.project_id}", None, account.bearer).status == 200
