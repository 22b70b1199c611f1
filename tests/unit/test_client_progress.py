"""What a subscription of the Python client makes of responses and failures, without a server."""

from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from nimbus.v1 import event_service_pb2 as event_pb
from nimbus.v1 import stream_service_pb2 as pb
from nimbus_client import NimbusError, RetryPolicy
from nimbus_client.progress import BUSY_SECONDS_MAX, Progress, subscribe_request

PROJECT = "11111111-1111-4111-8111-111111111111"
NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
AWAY = NimbusError(grpc.StatusCode.UNAVAILABLE, "away")


def progress(deadline_seconds: float | None = None, policy: RetryPolicy | None = None, **wanted: Any) -> Progress:
    return Progress(subscribe_request(PROJECT, **wanted), policy or RetryPolicy(), deadline_seconds)


def response(position: int, *seqs: int) -> pb.SubscribeEventsResponse:
    events = [event_pb.StoredEvent(seq=seq, name="a", props_json=b'{"n":12345678901234567}') for seq in seqs]
    return pb.SubscribeEventsResponse(events=events, position=position)


@pytest.mark.parametrize(
    ("wanted", "chosen", "value"),
    [
        ({}, "start_point", pb.START_POINT_LATEST),
        ({"start": "earliest"}, "start_point", pb.START_POINT_EARLIEST),
        ({"after_seq": 0}, "after_seq", 0),
        ({"since": NOON}, "since", None),
    ],
)
def test_a_start_is_what_was_asked_for(wanted: dict[str, Any], chosen: str, value: object) -> None:
    request = subscribe_request(PROJECT, **wanted)
    assert request.WhichOneof("start") == chosen
    assert value is None or getattr(request, chosen) == value
    assert request.props_form == pb.PROPS_FORM_JSON


@pytest.mark.parametrize(
    "wanted",
    [
        {"start": "now"},
        {"start": "earliest", "after_seq": 1},
        {"since": NOON, "after_seq": 1},
        {"since": NOON.replace(tzinfo=None)},
        {"consumer": ""},
        {"take_over": True},
    ],
)
def test_what_contradicts_itself_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"together|latest|time zone|name"):
        subscribe_request(PROJECT, **wanted)


def test_filters_and_consumer_are_asked_for_again_but_never_to_take_over() -> None:
    it = progress(names=["a", "b"], user_id="", props={"plan": "pro"}, consumer="c", take_over=True)
    assert it.request() == it.request()
    assert it.request().consumer_conflict == pb.CONSUMER_CONFLICT_TAKE_OVER
    it.take(response(7))
    again = it.request()
    assert (list(again.name), again.user_id, again.props, again.consumer) == (["a", "b"], "", '{"plan":"pro"}', "c")
    assert again.HasField("user_id")
    assert (again.after_seq, again.consumer_conflict) == (7, pb.CONSUMER_CONFLICT_REFUSE)


def test_it_resumes_behind_what_was_received() -> None:
    it = progress()
    assert not it.take(response(40))
    assert it.request().after_seq == 40
    assert it.take(response(45, 42, 44))
    assert it.request().after_seq == 45
    assert not it.take(response(60)) or it.next_batch()
    assert it.request().after_seq == 60


def test_an_event_is_done_when_the_next_one_is_asked_for() -> None:
    it = progress(consumer="c")
    it.take(response(40))
    assert (it.done, it.to_acknowledge) == (40, None)
    it.take(response(45, 42, 44))
    assert it.come_back()
    assert it.next_event().seq == 42
    assert (it.handed, it.to_acknowledge) == (42, None)
    assert it.come_back()
    assert it.to_acknowledge == 42
    assert it.next_event().props == {"n": 12345678901234567}
    assert (it.handed, it.done) == (45, 42)
    assert not it.come_back()
    assert it.to_acknowledge == 45
    it.acknowledged(45)
    assert it.to_acknowledge is None
    it.acknowledged(44)
    assert it.to_acknowledge is None


def test_a_batch_takes_what_is_left_and_is_done_as_a_whole() -> None:
    it = progress()
    it.take(response(40))
    it.take(response(45, 42, 43, 44))
    it.next_event()
    batch = it.next_batch()
    assert ([event.seq for event in batch.events], batch.position) == ([43, 44], 45)
    assert not it.come_back()
    assert it.done == 45


def test_a_heartbeat_moves_what_is_done() -> None:
    it = progress(consumer="c")
    it.take(response(40))
    it.take(response(50))
    assert it.to_acknowledge == 50


def test_what_a_consumer_is_sent_again_is_not_handed_out_again() -> None:
    it = progress(consumer="c")
    it.take(response(40))
    it.take(response(42, 41, 42))
    it.next_batch()
    it.come_back()
    assert not it.take(response(40))
    assert not it.take(response(41, 41))
    assert it.handed == 42
    assert it.take(response(43, 42, 43))
    assert [event.seq for event in it.next_batch().events] == [43]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND"),
        (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_UNKNOWN"),
        (grpc.StatusCode.PERMISSION_DENIED, "SIGNATURE_MISMATCH"),
        (grpc.StatusCode.OUT_OF_RANGE, "POSITION_AHEAD"),
        (grpc.StatusCode.FAILED_PRECONDITION, "CONSUMER_TAKEN_OVER"),
        (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        (grpc.StatusCode.INTERNAL, "INTERNAL"),
        (grpc.StatusCode.UNIMPLEMENTED, ""),
    ],
)
def test_what_no_retry_mends_is_raised(code: grpc.StatusCode, reason: str) -> None:
    error = NimbusError(code, "no", reason=reason)
    with pytest.raises(NimbusError) as caught:
        progress().wait_after(error)
    assert caught.value is error


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, ""),
        (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE"),
        (grpc.StatusCode.CANCELLED, ""),
        (grpc.StatusCode.INTERNAL, ""),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ""),
        (grpc.StatusCode.ABORTED, "CONSUMER_BUSY"),
    ],
)
def test_what_a_retry_may_mend_waits_longer_each_time_until_a_message_comes(code: grpc.StatusCode, reason: str) -> None:
    error = NimbusError(code, "no", reason=reason)
    it = progress(policy=RetryPolicy(first_wait_seconds=1, max_wait_seconds=4))
    for longest in (1, 2, 4, 4):
        assert 0 <= it.wait_after(error) <= longest
    assert max(it.wait_after(error) for _ in range(50)) > 1
    it.take(response(1))
    assert it.wait_after(error) <= 1


def test_a_server_that_stops_is_left_at_once_and_the_edge_without_one_is_not_stormed() -> None:
    stops = NimbusError(grpc.StatusCode.UNAVAILABLE, "stops", reason="WORKER_UNAVAILABLE")
    it = progress(policy=RetryPolicy(first_wait_seconds=1, max_wait_seconds=4))
    assert it.wait_after(stops) == 0
    assert max(it.wait_after(stops) for _ in range(20)) > 0


def test_it_waits_as_long_as_the_server_asks() -> None:
    assert progress().wait_after(NimbusError(AWAY.code, "later", retry_after_seconds=30)) >= 30


def test_it_gives_up_at_the_deadline_and_by_default_never(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("nimbus_client.progress.time.monotonic", lambda: now)
    patient, impatient = progress(), progress(deadline_seconds=60)
    patient.wait_after(AWAY)
    impatient.wait_after(AWAY)
    now = 61
    patient.wait_after(AWAY)
    with pytest.raises(NimbusError, match="away"):
        impatient.wait_after(AWAY)
    impatient.take(response(1))
    impatient.wait_after(AWAY)


def test_a_consumer_that_stays_busy_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("nimbus_client.progress.time.monotonic", lambda: now)
    busy = NimbusError(grpc.StatusCode.ABORTED, "busy", reason="CONSUMER_BUSY")
    it = progress(consumer="c")
    it.wait_after(AWAY)
    now = 100
    it.wait_after(busy)
    now += BUSY_SECONDS_MAX - 6
    it.wait_after(busy)
    now += 6
    with pytest.raises(NimbusError, match="busy"):
        it.wait_after(busy)
