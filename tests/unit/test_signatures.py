"""A signature says who sent a request, what is in it, and when."""

import hashlib
import hmac
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nimbus_server.accounts.signatures import SignedRequest, signature_of, signed_at, verify
from nimbus_server.errors import NimbusError, Reason

SECRET = "nbs_not_a_real_secret"
NOW = datetime.fromtimestamp(1_763_900_000, UTC)
BODY = b'{"project_id":"p","events":[{"name":"signup"}]}'
# The documented formula, written out.
MESSAGE = b'1763900000.25:POST:/v1/events?dry=1:{"project_id":"p","events":[{"name":"signup"}]}'
SIGNATURE = hmac.new(SECRET.encode(), MESSAGE, hashlib.sha256).hexdigest()
REQUEST = SignedRequest("nbk_1", "1763900000.25", SIGNATURE, "POST", "/v1/events?dry=1", BODY)


def mismatch(error: NimbusError) -> bool:
    return error.reason is Reason.SIGNATURE_MISMATCH


def test_the_signature_is_the_documented_hmac() -> None:
    assert signature_of(REQUEST, SECRET) == SIGNATURE
    verify(REQUEST, SECRET)


@pytest.mark.parametrize("given_signature", [SIGNATURE.upper(), f" {SIGNATURE}\t"])
def test_case_and_outer_spaces_of_the_signature_do_not_matter(given_signature: str) -> None:
    verify(replace(REQUEST, signature=given_signature), SECRET)


@pytest.mark.parametrize(
    "given_signature", ["", SIGNATURE[:-1], SIGNATURE + "0", "0x" + SIGNATURE, "\u00e9" * 64, "\ud800"]
)
def test_what_is_not_the_signature_does_not_match(given_signature: str) -> None:
    with pytest.raises(NimbusError, check=mismatch):
        verify(replace(REQUEST, signature=given_signature), SECRET)


@given(st.text("0123456789abcdef", min_size=64, max_size=64))
def test_no_other_digest_matches(other: str) -> None:
    assume(other != SIGNATURE)
    with pytest.raises(NimbusError, check=mismatch):
        verify(replace(REQUEST, signature=other), SECRET)


@given(st.binary(min_size=1), st.data())
def test_every_changed_byte_of_the_body_breaks_the_signature(body: bytes, data: st.DataObject) -> None:
    signed = replace(REQUEST, body=body)
    signed = replace(signed, signature=signature_of(signed, SECRET))
    index = data.draw(st.integers(0, len(body) - 1))
    changed = bytearray(body)
    changed[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NimbusError, check=mismatch):
        verify(replace(signed, body=bytes(changed)), SECRET)


@given(st.sampled_from(["method", "path", "timestamp"]), st.integers(0, 100), st.characters(codec="utf-8"))
def test_every_changed_character_of_the_rest_breaks_the_signature(field: str, index: int, character: str) -> None:
    text = getattr(REQUEST, field)
    index %= len(text)
    assume(text[index] != character)
    changed = text[:index] + character + text[index + 1 :]
    with pytest.raises(NimbusError, check=mismatch):
        verify(replace(REQUEST, **{field: changed}), SECRET)


@given(st.text())
def test_another_secret_breaks_the_signature(secret: str) -> None:
    # HMAC fills a short key up with NUL, so a secret and the same one with NUL after it are one key.
    assume(secret.rstrip("\0") != SECRET)
    with pytest.raises(NimbusError, check=mismatch):
        verify(REQUEST, secret)


@pytest.mark.parametrize(
    ("timestamp", "second"),
    [("1763900000", 0), ("1763900000.25", 0.25), ("1763899700", -300), ("1763900300", 300), ("1.7639e9", 0)],
)
def test_a_timestamp_within_300_seconds_is_the_moment_of_signing(timestamp: str, second: float) -> None:
    at = signed_at(replace(REQUEST, timestamp=timestamp), NOW)
    assert at.timestamp() == NOW.timestamp() + second
    assert at.tzinfo is UTC


@pytest.mark.parametrize(
    "timestamp",
    [
        *("1763899699", "1763899699.99", "1763900300.01", "1763900301", "1763900000000", "0", "-1763900000"),
        *("", " ", "now", "nan", "NaN", "inf", "-inf", "1e400", "0x69230020", "2025-11-23T12:13:20Z"),
    ],
)
def test_any_other_timestamp_is_stale_and_the_error_tells_the_servers_time(timestamp: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.SIGNATURE_STALE) as stale:
        signed_at(replace(REQUEST, timestamp=timestamp), NOW)
    assert stale.value.metadata == {"server_time": "1763900000"}


@given(st.text() | st.floats().map(str))
def test_no_timestamp_makes_another_error(timestamp: str) -> None:
    with suppress(NimbusError):
        at = signed_at(replace(REQUEST, timestamp=timestamp), NOW)
        assert abs((at - NOW).total_seconds()) <= 300
