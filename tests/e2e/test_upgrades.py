"""Offers to speak another protocol: ignored (RFC 9110, section 7.8), but for WebSockets where they are served."""

import json

import pytest
from conftest import Account, Stack
from credentials import machine
from outcomes import rest_failure
from transports import send

from nimbus_server.errors import Reason

OFFERS = (
    {"upgrade": "TLS/1.2"},
    {"upgrade": "TLS/1.0, HTTP/2.0"},
    {"upgrade": "tls/1.3,IRC/6.9"},
    {"upgrade": "H2C"},
    {"upgrade": "h2c", "connection": "Upgrade, HTTP2-Settings", "http2-settings": "AAMAAABkAAQCAAAAAAIAAAAA"},
    {"upgrade": "foo/1", "connection": "close, foo, Upgrade"},
    {"upgrade": "web"},
    {"upgrade": "websockets"},
    {"upgrade": "WebSocket/13"},
)


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer["upgrade"])
def test_a_request_that_offers_another_protocol_is_served(
    stack: Stack, account: Account, offer: dict[str, str]
) -> None:
    headers = {"connection": "keep-alive, Upgrade", **offer}
    for path in ("/health", "/docs", "/openapi.json", "/v1/auth/me"):
        assert send(stack, "GET", path, None, {**headers, **account.bearer}).status == 200, path
    assert send(stack, "GET", "/redoc", None, headers).status == 307
    assert send(stack, "GET", "/v1/nope", None, headers).status == 404
    body = json.dumps({"project_id": account.project_id, "events": [{"name": "signup"}]}).encode()
    signature = machine(account)("POST", "/v1/events", body)
    stored = send(stack, "POST", "/v1/events", body, {"content-type": "application/json", **headers, **signature})
    assert (stored.status, stored.json["accepted"]) == (200, 1)


HANDSHAKE = {"sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "WEBSOCKET", "websocket, h2c", "TLS/1.2, websocket"])
@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade"])
def test_a_websocket_opens_however_its_offer_is_written(
    stack: Stack, account: Account, upgrade: str, connection: str
) -> None:
    headers = {"connection": connection, "upgrade": upgrade, **HANDSHAKE, **account.bearer}
    answer = send(stack, "GET", f"/ws/projects/{account.project_id}", None, headers, enough=bool)
    assert answer.status == 101, answer


def test_a_websocket_is_refused_where_none_is_served(stack: Stack) -> None:
    for upgrade in ("websocket", "WebSocket", "websocket, h2c"):
        answer = send(stack, "GET", "/health", None, {"connection": "upgrade", "upgrade": upgrade, **HANDSHAKE})
        assert (answer.status, rest_failure(answer).reason) == (403, Reason.REQUEST_UNPARSABLE)
