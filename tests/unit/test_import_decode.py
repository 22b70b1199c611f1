"""Records of a file become events that are the same however often they are read."""

import math
from datetime import UTC, datetime
from functools import reduce
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_server.clock import DAY, micros
from nimbus_server.importer.decode import Rejected, decode_records
from nimbus_server.importer.record import Record, unparsable
from nimbus_server.ingest.event import TS_MIN, NewEvent

NOW = micros(datetime(2026, 1, 1, tzinfo=UTC))
TS = "2025-11-01T12:00:00Z"
TOO_DEEP: list[Any] = reduce(lambda inner, _: [inner], range(20), [])


def decode(*contents: Any, file: str = "a.jsonl", line: int = 1, ts_min: int = TS_MIN) -> Any:
    records = [Record(line + n, repr(content).encode(), content) for n, content in enumerate(contents)]
    return decode_records(records, file, NOW, ts_min)


def one(**fields: Any) -> NewEvent:
    (event,), rejected = decode({"name": "n", "ts": TS} | fields)
    assert rejected == []
    return event


def refused(**fields: Any) -> tuple[str, str]:
    events, (rejected,) = decode({"name": "n", "ts": TS} | fields)
    assert events == []
    return rejected.field, rejected.reason


@pytest.mark.parametrize(
    ("ts", "at"),
    [
        (TS, datetime(2025, 11, 1, 12, tzinfo=UTC)),
        ("2025-11-01T12:00:00.000001+01:00", datetime(2025, 11, 1, 11, 0, 0, 1, tzinfo=UTC)),
        (1_761_998_400, datetime(2025, 11, 1, 12, tzinfo=UTC)),
        (1_761_998_400.25, datetime(2025, 11, 1, 12, 0, 0, 250_000, tzinfo=UTC)),
        (1_761_998_400_125, datetime(2025, 11, 1, 12, 0, 0, 125_000, tzinfo=UTC)),
        ("1761998400", datetime(2025, 11, 1, 12, tzinfo=UTC)),
        ("1761998400.000001", datetime(2025, 11, 1, 12, 0, 0, 1, tzinfo=UTC)),
        ("1761998400125", datetime(2025, 11, 1, 12, 0, 0, 125_000, tzinfo=UTC)),
        (946_684_800, datetime(2000, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_may_be_text_seconds_or_milliseconds(ts: Any, at: datetime) -> None:
    assert one(ts=ts).ts == micros(at)


@given(st.integers(TS_MIN, NOW))
def test_seconds_with_a_fraction_keep_their_microseconds(at: int) -> None:
    assert one(ts=at / 1e6).ts == at
    assert one(ts=f"{at // 10**6}.{at % 10**6:06}").ts == at


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"ts": None}, "ts", "FIELD_REQUIRED"),
        ({"ts": ""}, "ts", "FIELD_INVALID"),
        ({"ts": True}, "ts", "FIELD_INVALID"),
        ({"ts": [1]}, "ts", "FIELD_INVALID"),
        ({"ts": 1.7e308}, "ts", "FIELD_INVALID"),
        ({"ts": math.inf}, "ts", "FIELD_INVALID"),
        ({"ts": "1" * 19}, "ts", "FIELD_INVALID"),
        ({"ts": "yesterday"}, "ts", "FIELD_INVALID"),
        ({"ts": "2025-11-31T00:00:00Z"}, "ts", "FIELD_INVALID"),
        ({"ts": 1e300}, "ts", "TS_OUT_OF_RANGE"),
        ({"ts": -(10**17)}, "ts", "TS_OUT_OF_RANGE"),
        ({"ts": "1" * 18}, "ts", "TS_OUT_OF_RANGE"),
        ({"ts": 10**11 - 1}, "ts", "TS_OUT_OF_RANGE"),
        ({"ts": 0}, "ts", "TS_OUT_OF_RANGE"),
        ({"ts": "1999-12-31T23:59:59Z"}, "ts", "TS_OUT_OF_RANGE"),
        ({"name": None}, "name", "FIELD_REQUIRED"),
        ({"name": 5}, "name", "FIELD_INVALID"),
        ({"name": "n" * 201}, "name", "FIELD_TOO_LONG"),
        ({"user_id": "\0"}, "user_id", "FIELD_INVALID"),
        ({"user_id": "\udc80"}, "user_id", "FIELD_INVALID"),
        ({"idempotency_key": 7}, "idempotency_key", "FIELD_INVALID"),
        ({"user_id": False}, "user_id", "FIELD_INVALID"),
        ({"props": 0}, "props", "FIELD_INVALID"),
        ({"properties": []}, "props", "FIELD_INVALID"),
        ({"properties": {}, "props": {}}, "properties", "FIELD_INVALID"),
        ({"props": [1]}, "props", "FIELD_INVALID"),
        ({"props": {"a": TOO_DEEP}}, "props", "PROPS_TOO_DEEP"),
        ({"props": {"a": "x" * 33_000}}, "props", "FIELD_TOO_LONG"),
        ({"seq": 1}, "seq", "FIELD_UNKNOWN"),
        ({"id": ""}, "id", "FIELD_INVALID"),
        ({"id": 1.5}, "id", "FIELD_INVALID"),
        ({"id": True}, "id", "FIELD_INVALID"),
        ({"id": "\udc80"}, "id", "FIELD_INVALID"),
        ({"id": "x" * 201}, "id", "FIELD_TOO_LONG"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], field: str, reason: str) -> None:
    assert refused(**fields) == (field, reason)


def test_what_retention_would_drop_is_refused() -> None:
    yesterday = {"name": "n", "ts": (NOW - DAY) / 1e6}
    assert len(decode(yesterday, ts_min=NOW - DAY)[0]) == 1
    _, (rejected,) = decode(yesterday, ts_min=NOW - DAY + 1)
    assert (rejected.field, rejected.reason) == ("ts", "TS_OUT_OF_RANGE")
    assert "oldest that this server keeps" in rejected.message


def test_rejected_come_in_the_order_of_their_lines_and_leave_the_others_alone() -> None:
    good = {"name": "n", "ts": TS, "id": "1"}
    events, rejected = decode({"name": ""} | {"ts": TS}, unparsable("no"), good, {"name": "n"}, {"ts": TS}, line=7)
    assert [(r.line, r.field, r.reason) for r in rejected] == [
        (7, "name", "FIELD_REQUIRED"),
        (8, "", "REQUEST_UNPARSABLE"),
        (10, "ts", "FIELD_REQUIRED"),
        (11, "name", "FIELD_REQUIRED"),
    ]
    assert all(isinstance(r, Rejected) for r in rejected)
    assert [event.id for event in events] == [one(id="1").id]


def test_an_idempotency_key_makes_the_identity_that_ingest_makes_of_it() -> None:
    assert one(idempotency_key="k").id == one(idempotency_key="k", id="other").id
    assert one(idempotency_key="k").id != one(idempotency_key="k", user_id="u").id
    assert not one(idempotency_key="k").floating


def test_a_uuid_is_the_identity_and_other_ids_make_one() -> None:
    given_id = uuid4()
    assert one(id=str(given_id)).id == one(id=str(given_id).upper()).id == given_id.bytes
    ids = [one(id=value).id for value in ("evt_1", "evt_2", given_id.hex, 17)]
    assert len(set(ids)) == 4
    assert {UUID(bytes=value).version for value in ids} == {8}
    assert one(id=17).id == one(id="17").id


def test_without_either_file_and_line_make_the_identity() -> None:
    def identities(file: str, line: int) -> list[bytes]:
        contents = [{"name": "n", "ts": TS}, {"name": "n", "ts": TS}]
        return [event.id for event in decode(*contents, file=file, line=line)[0]]

    assert identities("a", 1) == identities("a", 1)
    assert identities("a", 1)[1] == identities("a", 2)[0]
    assert len({*identities("a", 1), *identities("a", 3), *identities("b", 1)}) == 6
