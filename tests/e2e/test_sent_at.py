"""sent_at: a sender whose clock is wrong gets its times corrected, once, however often it sends."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Account, Stack
from credentials import machine, signed
from surface import RPCS
from transports import Transport, over_edge_grpc, over_native_grpc, over_rest

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.errors import Reason

INGEST, LIST = RPCS["EventService.IngestEvents"], RPCS["EventService.ListEvents"]
WAYS = [over_rest, over_native_grpc, over_edge_grpc]
YEARS = timedelta(days=3 * 365)


def text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def ingest(stack: Stack, account: Account, transport: Transport, sent_at: datetime, *events: Any) -> tuple[int, int]:
    """Accepted and duplicates, of a request that is signed anew."""
    fields = {"project_id": account.project_id, "events": events, "sent_at": text(sent_at)}
    response = transport(stack, INGEST, fields, machine(account)).response
    assert response.rejected == 0, response
    return response.accepted, response.duplicates


def times(stack: Stack, account: Account) -> dict[str, datetime]:
    items = over_rest(stack, LIST, {"project_id": account.project_id}, machine(account)).response.items
    assert len({item.name for item in items}) == len(items)
    return {item.name: item.ts.ToDatetime(UTC) for item in items}


def near(one: datetime, other: datetime) -> bool:
    return abs(one - other) < timedelta(seconds=20)


@pytest.mark.parametrize("skew", [-YEARS, YEARS, timedelta(0)], ids=["behind", "ahead", "right"])
@pytest.mark.parametrize("transport", WAYS)
def test_times_of_a_wrong_clock_are_corrected(
    stack: Stack, account: Account, transport: Transport, skew: timedelta
) -> None:
    now = datetime.now(UTC)
    wrong = now + skew
    events = [
        {"name": "an hour ago", "ts": text(wrong - timedelta(hours=1))},
        {"name": "keyed", "ts": text(wrong - timedelta(minutes=1)), "idempotency_key": "k"},
        {"name": "without ts"},
        {"name": "keyed without ts", "idempotency_key": "k"},
    ]
    assert ingest(stack, account, transport, wrong, *events) == (4, 0)
    found = times(stack, account)
    assert near(found["an hour ago"], now - timedelta(hours=1))
    assert near(found["keyed"], now - timedelta(minutes=1))
    # One correction for the whole request.
    assert found["keyed"] - found["an hour ago"] == timedelta(minutes=59)
    assert near(found["without ts"], now)
    assert near(found["keyed without ts"], now)


def test_an_event_without_ts_gets_the_time_of_arrival_not_of_the_signature(stack: Stack, account: Account) -> None:
    sign = signed(account.api_key_id, account.api_key_secret, f"{time.time() - 200:.6f}")
    fields = {"project_id": account.project_id, "events": [{"name": "x"}], "sent_at": text(datetime.now(UTC) - YEARS)}
    assert over_rest(stack, INGEST, fields, sign).response.accepted == 1
    assert near(times(stack, account)["x"], datetime.now(UTC))


@pytest.mark.parametrize("ts", [{}, {"ts": "2023-01-02T03:04:05Z"}], ids=["without ts", "with ts"])
def test_a_keyed_event_sent_again_at_another_time_is_a_duplicate(
    stack: Stack, account: Account, ts: dict[str, str]
) -> None:
    event = {"name": "paid", "idempotency_key": "order-7", **ts}
    sent = datetime(2023, 1, 2, 3, 5, tzinfo=UTC)
    assert ingest(stack, account, over_rest, sent, event) == (1, 0)
    first = times(stack, account)
    # By the sender's clock it is an hour later, by the server's a moment: another correction.
    for transport, later in zip(WAYS, (1, 3600, 86_400), strict=True):
        assert ingest(stack, account, transport, sent + timedelta(seconds=later), event) == (0, 1)
    assert times(stack, account) == first


def test_with_another_ts_the_same_key_is_another_event(stack: Stack, account: Account) -> None:
    sent = datetime.now(UTC) - YEARS
    event = {"name": "paid", "idempotency_key": "order-7"}
    with_ts = [{**event, "ts": text(sent - timedelta(seconds=n))} for n in (1, 2)]
    assert ingest(stack, account, over_rest, sent, *with_ts, *with_ts) == (2, 2)
    assert ingest(stack, account, over_native_grpc, sent + timedelta(seconds=5), *with_ts) == (0, 2)


@pytest.mark.parametrize("transport", WAYS)
def test_a_replay_of_the_same_signed_request_is_duplicates(
    stack: Stack, account: Account, transport: Transport
) -> None:
    sent = datetime.now(UTC) - YEARS
    events = [{"name": "a"}, {"name": "b", "ts": text(sent)}, {"name": "c", "idempotency_key": "k"}]
    fields = {"project_id": account.project_id, "events": events, "sent_at": text(sent)}
    sign = signed(account.api_key_id, account.api_key_secret, f"{time.time():.6f}")
    counted = []
    for _ in range(3):
        response = transport(stack, INGEST, fields, sign).response
        counted.append((response.accepted, response.duplicates))
    assert counted == [(3, 0), (0, 3), (0, 3)]
    assert len(times(stack, account)) == 3


@pytest.mark.parametrize("transport", WAYS)
def test_a_time_past_the_limits_after_correction_is_refused(
    stack: Stack, account: Account, transport: Transport
) -> None:
    sent = datetime.now(UTC) - YEARS
    events = [{"name": name, "ts": text(ts)} for name, ts in (
        ("in two days", sent + timedelta(days=2)),
        ("now by the server", datetime.now(UTC)),
        ("before 2000", datetime(1999, 1, 1, tzinfo=UTC) - YEARS),
        ("good", sent),
    )]  # fmt: skip
    fields = {"project_id": account.project_id, "events": events, "sent_at": text(sent)}
    response = transport(stack, INGEST, fields, machine(account)).response
    assert [(e.index, e.field, e.reason) for e in response.errors] == [
        (index, "ts", Reason.TS_OUT_OF_RANGE) for index in range(3)
    ]
    assert response.accepted == 1


def test_a_sent_at_that_is_no_time_refuses_the_request(stack: Stack, account: Account) -> None:
    for wrong in ("yesterday", "", 1_700_000_000, [], {}):
        fields = {"project_id": account.project_id, "events": [{"name": "x"}], "sent_at": wrong}
        failure = over_rest(stack, INGEST, fields, machine(account)).failure
        assert failure is not None
        assert (failure.reason, failure.violations) == (Reason.FIELD_INVALID, ("sent_at",))
    request = pb.IngestEventsRequest(project_id=account.project_id, events=[pb.Event(name="x")])
    request.sent_at.nanos = -1
    failure = over_native_grpc(stack, INGEST, request.SerializeToString(), machine(account)).failure
    assert failure is not None
    assert (failure.reason, failure.violations) == (Reason.FIELD_INVALID, ("sent_at",))
    assert times(stack, account) == {}
