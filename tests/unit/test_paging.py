"""Page tokens: what was made here is read back, anything else is the caller's fault."""

import base64
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.paging import Place, page_token, read_page_token

PLACES = st.tuples(st.datetimes(timezones=st.just(UTC)), st.uuids())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text()
    | st.sampled_from(["2025-11-01T00:00:00Z", str(UUID(int=1))]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else orjson.dumps(value)).decode()


@given(PLACES)
def test_a_token_leads_back_to_its_place(place: Place) -> None:
    assert read_page_token(page_token(place)) == place


@given(PLACES)
def test_a_token_has_only_characters_that_a_url_may_have(place: Place) -> None:
    assert page_token(place).replace("-", "").replace("_", "").rstrip("=").isalnum()


@pytest.mark.parametrize(
    "token",
    ["", "x", "nonsense", "\u00e9", "\ud800", "====", *map(encoded, [b"", b"\xff", None, 1, [], [1, 2], ["a", "b"]])],
)
def test_garbage_is_the_callers_fault_and_names_the_field(token: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.FIELD_INVALID) as failed:
        read_page_token(token)
    assert [violation.field for violation in failed.value.violations] == ["page_token"]


@given(st.text(st.characters(codec=None)) | st.binary().map(encoded) | VALUES.map(encoded))
def test_no_token_makes_another_error(token: str) -> None:
    with suppress(NimbusError):
        at, row_id = read_page_token(token)
        assert isinstance(at, datetime)
        assert isinstance(row_id, UUID)
