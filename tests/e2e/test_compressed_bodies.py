"""Compressed bodies over the real edge: signed as they are sent, unpacked no further than a body may be large."""

import gzip
import json
from collections.abc import Callable

import pytest
import zstandard
from conftest import Account, Stack
from credentials import machine, person
from outcomes import Answer, rest_failure
from surface import RPCS
from transports import over_rest, send

from nimbus_server.errors import Reason

PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}
BODY_BYTES_MAX = 16 * 1024 * 1024


def body_of(account: Account, count: int = 1, name: str = "x") -> bytes:
    return json.dumps({"project_id": account.project_id, "events": [{"name": name}] * count}).encode()


def ingest(stack: Stack, account: Account, body: bytes, encoding: str, signed_body: bytes | None = None) -> Answer:
    headers = machine(account)("POST", "/v1/events", body if signed_body is None else signed_body)
    kind = {"content-type": "application/json", "content-encoding": encoding}
    return send(stack, "POST", "/v1/events", body, {**kind, **headers})


def names(stack: Stack, account: Account) -> list[str]:
    fields = {"project_id": account.project_id}
    return [
        item.name for item in over_rest(stack, RPCS["EventService.ListEvents"], fields, person(account)).response.items
    ]


def refused(answer: Answer) -> tuple[int, str | None]:
    return answer.status, rest_failure(answer).reason


@pytest.mark.parametrize("encoding", PACK)
def test_a_compressed_body_is_stored_like_any_other(stack: Stack, account: Account, encoding: str) -> None:
    for count in (1, 1000):
        answer = ingest(stack, account, PACK[encoding](body_of(account, count)), encoding)
        assert answer.json["accepted"] == count
    assert ingest(stack, account, body_of(account, name="plain"), "identity").json["accepted"] == 1
    upper = ingest(stack, account, PACK[encoding](body_of(account, name="upper")), encoding.upper())
    assert upper.json["accepted"] == 1
    assert names(stack, account)[:2] == ["upper", "plain"]


@pytest.mark.parametrize("encoding", PACK)
def test_the_signature_is_over_the_bytes_as_sent(stack: Stack, account: Account, encoding: str) -> None:
    plain = body_of(account)
    packed = PACK[encoding](plain)
    assert refused(ingest(stack, account, packed, encoding, plain)) == (403, Reason.SIGNATURE_MISMATCH)
    assert refused(ingest(stack, account, plain, "identity", packed)) == (403, Reason.SIGNATURE_MISMATCH)
    assert names(stack, account) == []


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "utf-8", "*"])
def test_an_unknown_encoding_is_refused(stack: Stack, account: Account, encoding: str) -> None:
    answer = ingest(stack, account, body_of(account), encoding)
    assert refused(answer) == (400, Reason.REQUEST_UNPARSABLE)
    assert "gzip" in rest_failure(answer).message


@pytest.mark.parametrize("encoding", PACK)
def test_a_body_that_is_not_what_it_says_is_refused(stack: Stack, account: Account, encoding: str) -> None:
    packed = PACK[encoding](body_of(account, 50))
    wrong = [
        b"",
        body_of(account),
        packed[:-1],
        packed[: len(packed) // 2],
        packed[:5],
        packed[:20] + bytes(8) + packed[28:],
        packed + b"more",
        PACK["gzip" if encoding == "zstd" else "zstd"](body_of(account)),
        PACK[encoding](packed),
        PACK[encoding](b""),
    ]
    for body in wrong:
        answer = ingest(stack, account, body, encoding)
        assert refused(answer) == (400, Reason.REQUEST_UNPARSABLE), body[:30]
    assert refused(ingest(stack, account, packed, "identity")) == (400, Reason.REQUEST_UNPARSABLE)
    assert names(stack, account) == []


@pytest.mark.parametrize("encoding", PACK)
def test_a_body_is_limited_by_what_it_unpacks_to(stack: Stack, account: Account, encoding: str) -> None:
    plain = body_of(account)
    full = PACK[encoding](plain + b" " * (BODY_BYTES_MAX - len(plain)))
    assert ingest(stack, account, full, encoding).json["accepted"] == 1
    bomb = PACK[encoding](plain + b" " * (BODY_BYTES_MAX + 1 - len(plain)))
    assert len(bomb) < 20_000
    assert refused(ingest(stack, account, bomb, encoding)) == (413, Reason.BODY_TOO_LARGE)
    assert refused(ingest(stack, account, PACK[encoding](bytes(2**29)), encoding)) == (413, Reason.BODY_TOO_LARGE)
    assert len(names(stack, account)) == 1
