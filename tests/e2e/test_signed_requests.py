"""A signature is good for the one request that was signed, over the transport it was signed for, and nothing else."""

import json
import time

import pytest
from conftest import Account, Stack
from credentials import bearer, machine, person, signed
from google.api.httpbody_pb2 import HttpBody
from outcomes import Answer, rest_failure
from surface import RPCS
from transports import Transport, encoded, over_grpc, over_grpc_web, over_native_grpc, over_rest, send

from nimbus_server.errors import Reason

INGEST, LIST = RPCS["EventService.IngestEvents"], RPCS["EventService.ListEvents"]
BOTH = ["native port", "through Envoy"]


def target(stack: Stack, where: str) -> str:
    return stack.grpc_target if where == "native port" else stack.edge_target


def batch(account: Account) -> dict[str, object]:
    return {"project_id": account.project_id, "events": [{"name": "page_view"}]}


def body_of(account: Account) -> bytes:
    return json.dumps(batch(account)).encode()


def ingest(stack: Stack, body: bytes, headers: dict[str, str]) -> Answer:
    return send(stack, "POST", "/v1/events", body, {"content-type": "application/json", **headers})


def mismatch(answer: Answer) -> bool:
    return answer.status == 403 and rest_failure(answer).reason == Reason.SIGNATURE_MISMATCH


def test_a_signed_body_may_not_change_by_a_byte(stack: Stack, account: Account) -> None:
    body = body_of(account)
    headers = machine(account)("POST", "/v1/events", body)
    for other in (body + b" ", body.replace(b"page_view", b"page_vieW"), b"", body[:-1]):
        assert mismatch(ingest(stack, other, headers))
    assert ingest(stack, body, headers).json["accepted"] == 1


def test_method_path_and_timestamp_are_signed(stack: Stack, account: Account) -> None:
    body = body_of(account)
    sign = machine(account)
    good = sign("POST", "/v1/events", body)
    later = {**good, "x-api-timestamp": f"{float(good['x-api-timestamp']) + 1:.6f}"}
    same_moment = {**good, "x-api-timestamp": good["x-api-timestamp"] + "0"}
    for headers in (
        sign("PUT", "/v1/events", body),
        sign("post", "/v1/events", body),
        sign("POST", "/v1/metrics", body),
        sign("POST", "/v1/events/", body),
        sign("POST", "/v1/events?", body),
        sign("POST", INGEST.wire, body),
        later,
        same_moment,
        {**good, "x-api-signature": "0" * 64},
        {**good, "x-api-signature": good["x-api-signature"][:-1]},
    ):
        assert mismatch(ingest(stack, body, headers)), headers


@pytest.mark.parametrize("timestamp", ["{:.0f}", "{:.1f}", "{:.6f}", "{:.9f}"])
def test_whole_and_fractional_seconds_are_good(stack: Stack, account: Account, timestamp: str) -> None:
    sign = signed(account.api_key_id, account.api_key_secret, timestamp.format(time.time()))
    assert over_rest(stack, INGEST, batch(account), sign).response.accepted == 1
    assert over_native_grpc(stack, INGEST, batch(account), sign).response.accepted == 1


def test_the_digest_may_be_in_capitals(stack: Stack, account: Account) -> None:
    headers = machine(account)("POST", "/v1/events", body_of(account))
    assert ingest(stack, body_of(account), headers | {"x-api-signature": headers["x-api-signature"].upper()}).json


def test_the_query_of_a_signed_get_is_signed_letter_by_letter(stack: Stack, account: Account) -> None:
    path = f"/v1/events?project_id={account.project_id}&name=a%20b&limit=5"
    headers = machine(account)("GET", path, b"")
    for tampered in (
        path.replace("limit=5", "limit=6"),
        path + "&offset=1",
        path.removesuffix("&limit=5"),
        path.replace("a%20b", "a+b"),
        path.replace("name=a%20b&limit=5", "limit=5&name=a%20b"),
        path.replace("/v1/events", "/v1/metrics").replace("&name=a%20b", ""),
    ):
        assert mismatch(send(stack, "GET", tampered, None, headers)), tampered
    without_query = machine(account)("GET", "/v1/events", b"")
    assert mismatch(send(stack, "GET", path, None, without_query))
    assert send(stack, "GET", path, None, headers).json["limit"] == 5


@pytest.mark.parametrize("where", BOTH)
def test_a_rest_signature_is_no_good_over_grpc(stack: Stack, account: Account, where: str) -> None:
    path = f"/v1/events?project_id={account.project_id}"
    of_get = machine(account)("GET", path, b"")
    of_post = machine(account)("POST", "/v1/events", encoded(INGEST, batch(account)))
    for rpc, fields, headers in ((LIST, b"", of_get), (INGEST, batch(account), of_post)):
        failure = over_grpc(target(stack, where), rpc, fields, lambda *_, headers=headers: headers).failure
        assert failure is not None
        assert failure.reason == Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize("where", BOTH)
def test_a_grpc_signature_is_good_for_that_rpc_and_those_bytes(stack: Stack, account: Account, where: str) -> None:
    raw = encoded(LIST, {"project_id": account.project_id})
    headers = machine(account)("POST", LIST.wire, raw)
    place = target(stack, where)
    for rpc, body in ((RPCS["MetricsService.QueryMetrics"], raw), (LIST, raw + b"\x38\x05"), (LIST, b"")):
        failure = over_grpc(place, rpc, body, lambda *_: headers).failure
        assert failure is not None
        assert failure.reason == Reason.SIGNATURE_MISMATCH
    assert mismatch(send(stack, "GET", f"/v1/events?project_id={account.project_id}", None, headers))
    assert over_grpc(place, LIST, raw, lambda *_: headers).failure is None
    assert over_grpc_web(stack, LIST, raw, lambda *_: headers).failure is None


@pytest.mark.parametrize("where", BOTH)
def test_headers_that_the_edge_sets_are_not_believed_from_outside(stack: Stack, account: Account, where: str) -> None:
    """A signed REST request must not pass as the same request over gRPC, nor an unsigned body as a signed one."""
    json_body = body_of(account)
    of_rest = machine(account)("POST", "/v1/events", json_body)
    request = INGEST.request(http_body=HttpBody(content_type="application/json", data=json_body))
    forged = {"x_envoy_original_path": "/v1/events", "x_envoy_original_method": "POST"}
    place = target(stack, where)
    failure = over_grpc(place, INGEST, request.SerializeToString(), lambda *_: of_rest, **forged).failure
    assert failure is not None
    assert failure.reason == Reason.SIGNATURE_MISMATCH
    # What is signed for gRPC stays good beside them, and a body of JSON is refused to anyone.
    assert over_grpc(place, INGEST, batch(account), machine(account), **forged).response.accepted == 1
    for who in (machine(account), person(account)):
        refused = over_grpc(place, INGEST, request.SerializeToString(), who, **forged).failure
        assert refused is not None
        assert (refused.reason, refused.violations) == (Reason.FIELD_INVALID, ("http_body",))


@pytest.mark.parametrize("where", BOTH)
@pytest.mark.parametrize("name", [n for n, rpc in RPCS.items() if "json_body" in rpc.request.DESCRIPTOR.fields_by_name])
def test_a_json_body_is_refused_over_grpc(stack: Stack, account: Account, name: str, where: str) -> None:
    request = RPCS[name].request(json_body=HttpBody(data=b'{"name": "x", "email": "a@example.com"}'))
    for forged in ({}, {"x_envoy_original_path": "/v1/projects", "x_envoy_original_method": "POST"}):
        body = request.SerializeToString()
        failure = over_grpc(target(stack, where), RPCS[name], body, person(account), **forged).failure
        assert failure is not None
        assert (failure.reason, failure.violations) == (Reason.FIELD_INVALID, ("json_body",))


def test_a_forged_original_path_does_not_cover_a_tampered_query(stack: Stack, account: Account) -> None:
    path = f"/v1/events?project_id={account.project_id}"
    headers = machine(account)("GET", path, b"")
    for name in ("x-envoy-original-path", "X-Envoy-Original-Path"):
        forged = {**headers, name: path, "x-envoy-original-method": "GET"}
        assert mismatch(send(stack, "GET", f"{path}&limit=200", None, forged))
        assert send(stack, "GET", path, None, {**headers, name: "/elsewhere"}).status == 200


@pytest.mark.parametrize("transport", [over_rest, over_native_grpc, over_grpc_web])
def test_a_request_id_from_outside_is_not_taken_over(stack: Stack, account: Account, transport: Transport) -> None:
    forged = "11111111-2222-4333-8444-555555555555"

    def sign(method: str, path: str, body: bytes) -> dict[str, str]:
        return {**bearer(account.access_token)(method, path, body), "x-request-id": forged}

    outcome = transport(stack, LIST, {"project_id": account.project_id}, sign)
    assert outcome.failure is None
    assert outcome.request_id not in {None, forged}
