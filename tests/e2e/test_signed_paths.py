"""A signature is over the path and query as they were sent, whatever they are rewritten to on their way."""

import json
import subprocess
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from conftest import Account, Stack
from credentials import machine, person
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outcomes import Answer, rest_failure
from sockets import end, reason_of, socket_at
from transports import send, send_raw
from websockets.exceptions import InvalidStatus

from nimbus_server.errors import Reason

NAME = "a-b_c.d~e f"


def percent(text: str, *, low: bool = False) -> str:
    """All of it percent-encoded."""
    encoded = "".join(f"%{byte:02X}" for byte in text.encode())
    return encoded.lower() if low else encoded


def spellings(path: str) -> Iterator[str]:
    """Other ways to write a path."""
    yield path.replace("-", "%2D").replace("_", "%5F").replace("~", "%7E")
    yield path.replace("-", "%2d").replace("~", "%7e").replace(".", "%2e")
    yield "/" + "/".join(percent(segment) for segment in path[1:].split("/"))
    yield "/" + "/".join(percent(segment, low=True) for segment in path[1:].split("/"))
    yield path.replace("/v1/", "/v1/./")
    yield path.replace("/v1/", "/v1/x/../")
    yield path.replace("/v1/", "/v1/x/%2e%2E/")
    yield path.replace("/v1/", "/v1\\")


def signed(stack: Stack, account: Account, method: str, target: str, body: bytes | None = None) -> Answer:
    headers = machine(account)(method, target, body or b"")
    return send(stack, method, target, body, headers)


def is_mismatch(answer: Answer) -> bool:
    return answer.status == 403 and rest_failure(answer).reason == Reason.SIGNATURE_MISMATCH


def test_a_get_may_be_written_in_any_way(stack: Stack, account: Account) -> None:
    query = f"?project_id={account.project_id}&name=a%7Eb&name=a+b&name=%61"
    for path in ("/v1/events", *spellings("/v1/events")):
        answer = signed(stack, account, "GET", path + query)
        assert answer.status == 200, (path, answer)
        assert answer.json["items"] == []
        assert is_mismatch(send(stack, "GET", path + query, None, machine(account)("GET", path + query + "&", b"")))


def test_a_post_may_be_written_in_any_way(stack: Stack, account: Account) -> None:
    for number, path in enumerate(spellings("/v1/events")):
        body = json.dumps({"project_id": account.project_id, "events": [{"name": f"{number}"}]}).encode()
        answer = signed(stack, account, "POST", path, body)
        assert (answer.status, answer.json.get("accepted")) == (200, 1), (path, answer)


@pytest.mark.parametrize("low", [False, True])
def test_names_in_a_path_may_be_encoded_in_any_way(stack: Stack, account: Account, low: bool) -> None:
    start = f"/v1/projects/{account.project_id}/consumers/"
    names = [percent(NAME, low=low), quote(NAME, safe=""), quote(NAME, safe="").replace("~", "%7E").replace("-", "%2D")]
    for spelled in names:
        path = f"{start}{spelled}"
        headers = machine(account)("GET", f"/v1/projects/{account.project_id}/consumers", b"")
        answer = signed(stack, account, "POST", f"{path}/ack", b'{"position": "0"}')
        assert answer.status == 404, answer  # there is none yet, but the signature is good
        assert rest_failure(answer).reason == Reason.CONSUMER_NOT_FOUND
        assert NAME in answer.json["message"]
        assert is_mismatch(send(stack, "DELETE", path, None, headers))
        assert signed(stack, account, "DELETE", path).status == 404


def test_a_signature_of_one_spelling_is_not_good_for_another(stack: Stack, account: Account) -> None:
    query = f"?project_id={account.project_id}"
    paths = ["/v1/events", *spellings("/v1/events")]
    for path in paths:
        for other in paths:
            if other != path:
                assert is_mismatch(send(stack, "GET", other + query, None, machine(account)("GET", path + query, b"")))


@st.composite
def spelled(draw: st.DrawFn, path: str) -> str:
    """A path with any of its characters percent-encoded, and with segments that lead nowhere."""
    segments = []
    for segment in path[1:].split("/"):
        segments += draw(st.lists(st.sampled_from([".", "%2E", "x/..", "%2f/%2e.", "/.."]), max_size=1))
        segments.append("".join(draw(st.sampled_from([c, percent(c), percent(c, low=True)])) for c in segment))
    return "/" + "/".join(segments)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=spelled("/v1/metrics"))
def test_any_spelling_reaches_the_route_that_was_signed(stack: Stack, account: Account, path: str) -> None:
    target = f"{path}?project_id={account.project_id}"
    assert signed(stack, account, "GET", target).status == 200
    headers = machine(account)("GET", f"/v1/metrics?project_id={account.project_id}", b"")
    assert path == "/v1/metrics" or is_mismatch(send(stack, "GET", target, None, headers))


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_http_2_carries_the_path_as_http_1_1_does(stack: Stack, account: Account, protocol: str) -> None:
    path = f"/v1/x/../%65vents?project_id={account.project_id}&name=a%7eb"
    for sent, status in ((path, "200"), (path.replace("%7e", "%7E"), "403"), (f"{path}&", "403")):
        headers = [f"-H{name}: {value}" for name, value in machine(account)("GET", path, b"").items()]
        command = ["curl", "-sS", "-o/dev/null", "-w%{http_code}", "--path-as-is", protocol, *headers]
        done = subprocess.run([*command, f"{stack.url}{sent}"], capture_output=True, text=True, timeout=20, check=True)
        assert done.stdout == status


def test_a_question_mark_without_a_query_is_signed_and_means_nothing(stack: Stack, account: Account) -> None:
    body = json.dumps({"project_id": account.project_id, "events": [{"name": "x"}]}).encode()
    consumers = f"/v1/projects/{account.project_id}/consumers"
    for method, path, sent, status in (
        ("POST", "/v1/events", body, 200),
        ("GET", consumers, None, 200),
        ("DELETE", f"{consumers}/x", None, 404),
    ):
        answer = signed(stack, account, method, f"{path}?", sent)
        assert answer.status == status, (method, answer)
        assert is_mismatch(send(stack, method, f"{path}?", sent, machine(account)(method, path, sent or b"")))


def test_an_absolute_target_is_signed_as_its_path(stack: Stack, account: Account) -> None:
    path = f"/v1/%65vents?project_id={account.project_id}"
    fields = {"host": "x", **machine(account)("GET", path, b"")}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    answer = send_raw(stack, f"GET http://elsewhere.example.com{path} HTTP/1.1\r\n{head}\r\n".encode())
    assert answer.status == 200


def test_a_forged_header_does_not_stand_for_the_path(stack: Stack, account: Account) -> None:
    query = f"?project_id={account.project_id}"
    headers = machine(account)("GET", f"/v1/events{query}", b"")
    for name in ("x-nimbus-path", "X-Nimbus-Path", "x-nimbus-prepared", "x-envoy-original-path"):
        for target in (f"/v1/events{query}&limit=3", f"/v1/%65vents{query}"):
            assert is_mismatch(send(stack, "GET", target, None, {**headers, name: f"/v1/events{query}"}))


async def test_the_path_of_a_websocket_may_be_written_in_any_way(stack: Stack, account: Account) -> None:
    for project in (account.project_id.replace("-", "%2D"), percent(account.project_id)):
        path = f"/ws/projects/{project}?name=a%7Eb"
        async with socket_at(stack, path, machine(account)) as socket:
            assert json.loads(await socket.recv())["type"] == "position"
        of_another = machine(account)("GET", path, b"")
        async with socket_at(stack, path + "&name=c", lambda *_, headers=of_another: headers) as socket:
            assert json.loads(await socket.recv())["code"] == 7
    async with socket_at(stack, f"/ws/projects/{account.project_id}%2F", person(account)) as socket:
        _, error = await end(socket)
        assert reason_of(error) == Reason.FIELD_INVALID
    for other in (f"/ws/projects%2F{account.project_id}", f"/ws/./projects/{account.project_id}", "/ws/projects/"):
        with pytest.raises(InvalidStatus, match="404"):
            async with socket_at(stack, other, machine(account)):
                pass


async def test_no_header_stands_for_the_path_of_a_websocket(stack: Stack, account: Account) -> None:
    path = f"/ws/projects/{account.project_id}"
    forged = {"x-nimbus-path": path, "x-envoy-original-path": path, **machine(account)("GET", path, b"")}
    async with socket_at(stack, f"{path}?name=c", lambda *_: forged) as socket:
        _, error = await end(socket)
        assert reason_of(error) == Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("nope=1", Reason.FIELD_UNKNOWN),
        ("projectId=1", Reason.FIELD_UNKNOWN),
        ("since.seconds=5", Reason.FIELD_UNKNOWN),
        ("http_body=e30=", Reason.FIELD_UNKNOWN),
        ("limit=1&limit=2", Reason.FIELD_INVALID),
        ("user_id=a&user_id=b", Reason.FIELD_INVALID),
        ("limit=", Reason.FIELD_INVALID),
        ("limit=x", Reason.FIELD_INVALID),
        ("limit=1.5", Reason.FIELD_INVALID),
        ("limit=1_0", Reason.FIELD_INVALID),
        ("limit=%2B5", Reason.FIELD_INVALID),
        ("limit=%095", Reason.FIELD_INVALID),
        ("limit=%EF%BC%95", Reason.FIELD_INVALID),
        ("limit=99999999999999999999", Reason.FIELD_INVALID),
        ("name=%zz", Reason.REQUEST_UNPARSABLE),
        ("name=%ff", Reason.REQUEST_UNPARSABLE),
        ("&".join(f"name={n}" for n in range(201)), Reason.REQUEST_UNPARSABLE),
    ],
)
def test_a_query_is_read_strictly(stack: Stack, account: Account, query: str, reason: Reason) -> None:
    answer = send(stack, "GET", f"/v1/events?project_id={account.project_id}&{query}", None, account.bearer)
    assert (answer.status, rest_failure(answer).reason) == (400, reason)
