"""Checks of single request fields, at each limit and just past it."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.fields import filter_field, int_field, text_field, time_field, timestamp, uuid_field

ID = UUID("7f3c5a52-6f0e-4b1c-9a52-0c1a5a0e3d11")


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (lambda: uuid_field("f", ""), Reason.FIELD_REQUIRED),
        (lambda: uuid_field("f", "7f3c5a52"), Reason.FIELD_INVALID),
        (lambda: uuid_field("f", f"{ID}0"), Reason.FIELD_INVALID),
        (lambda: uuid_field("f", f"{ID}' OR 1=1"), Reason.FIELD_INVALID),
        (lambda: text_field("f", "", 5), Reason.FIELD_REQUIRED),
        (lambda: text_field("f", " \t\n", 5), Reason.FIELD_REQUIRED),
        (lambda: text_field("f", "123456", 5), Reason.FIELD_TOO_LONG),
        (lambda: text_field("f", "a\0b", 5), Reason.FIELD_INVALID),
        (lambda: filter_field("f", ["a"] * 101, 5), Reason.FIELD_TOO_LONG),
        (lambda: filter_field("f", ["a", ""], 5), Reason.FIELD_REQUIRED),
        (lambda: filter_field("f", ["a", "123456"], 5), Reason.FIELD_TOO_LONG),
        (lambda: int_field("f", 0, 1, 9), Reason.FIELD_INVALID),
        (lambda: int_field("f", 10, 1, 9), Reason.FIELD_INVALID),
        (lambda: time_field("f", Timestamp(seconds=253_402_300_800)), Reason.FIELD_INVALID),
        (lambda: time_field("f", Timestamp(seconds=-62_135_596_801)), Reason.FIELD_INVALID),
        (lambda: time_field("f", Timestamp(nanos=-1)), Reason.FIELD_INVALID),
    ],
)
def test_a_field_past_its_limit_is_named_in_the_error(check: Callable[[], object], reason: Reason) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is reason) as failed:
        check()
    (violation,) = failed.value.violations
    assert violation.field == "f"
    assert violation.message.startswith("f m") or violation.message == "f is required."


def test_a_field_at_its_limit_is_valid() -> None:
    assert uuid_field("f", str(ID)) == uuid_field("f", str(ID).upper()) == ID
    assert text_field("f", "12345", 5) == "12345"
    assert text_field("f", "\U0001f600" * 5, 5) == "\U0001f600" * 5
    assert filter_field("f", ["a"] * 100, 5) == ["a"] * 100
    assert filter_field("f", [], 5) == []
    assert [int_field("f", n, 1, 9) for n in (1, 9)] == [1, 9]
    assert time_field("f", Timestamp(seconds=-62_135_596_800)) == datetime.min.replace(tzinfo=UTC)
    assert time_field("f", Timestamp(seconds=253_402_300_799, nanos=999_999_999)) == datetime.max.replace(tzinfo=UTC)


@given(st.text(st.characters(codec=None)) | st.text("0123456789abcdefABCDEF-{}_ ", min_size=30, max_size=40))
def test_no_text_makes_another_error_of_a_uuid(text: str) -> None:
    with suppress(NimbusError):
        assert isinstance(uuid_field("f", text), UUID)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_survives_its_message(at: datetime) -> None:
    assert time_field("f", timestamp(at)) == at


def test_a_filter_finds_what_ingest_takes_even_a_name_of_white_space() -> None:
    assert filter_field("name", [" "], 200) == [" "]
