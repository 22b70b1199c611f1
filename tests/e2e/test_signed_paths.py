"""A signature is over the path and query as they were sent, whatever they are rewritten to on their way."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from conftest import Account, Stack
from credentials import machine, person
from outcomes import Answer, rest_failure
from sockets import socket_at
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
    with pytest.raises(InvalidStatus):
        async with socket_at(stack, f"/ws/projects/{account.project_id}%2F", person(account)):
            pass


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
        ("limit=99999999999999999999", Reason.FIELD_INVALID),
        ("name=%zz", Reason.REQUEST_UNPARSABLE),
        ("name=%ff", Reason.REQUEST_UNPARSABLE),
        ("&".join(f"name={n}" for n in range(201)), Reason.REQUEST_UNPARSABLE),
    ],
)
def test_a_query_is_read_strictly(stack: Stack, account: Account, query: str, reason: Reason) -> None:
    answer = send(stack, "GET", f"/v1/events?project_id={account.project_id}&{query}", None, account.bearer)
    assert (answer.status, rest_failure(answer).reason) == (400, reason)
