"""Receipts: what became of each event of a batch, at which position of the log, over every transport."""

from typing import Any

import pytest
from conftest import Account, Stack, new_account
from credentials import machine
from surface import RPCS
from transports import TRANSPORTS, over_native_grpc, over_rest

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.errors import Reason

INGEST, LIST = RPCS["EventService.IngestEvents"], RPCS["EventService.ListEvents"]
STORED, DUPLICATE, REJECTED = (
    pb.EVENT_OUTCOME_STORED,
    pb.EVENT_OUTCOME_DUPLICATE,
    pb.EVENT_OUTCOME_REJECTED,
)
KEYED = {"name": "paid", "idempotency_key": "k"}


def receipts(stack: Stack, account: Account, events: list[Any], transport: str = "REST") -> list[tuple[int, int, str]]:
    """Outcome, position and reason of each event, which must agree with the counts and the errors."""
    fields = {"project_id": account.project_id, "events": events, "return_receipts": True}
    response = TRANSPORTS[transport](stack, INGEST, fields, machine(account)).response
    assert [receipt.index for receipt in response.receipts] == list(range(len(events)))
    outcomes = [receipt.outcome for receipt in response.receipts]
    counts = (response.accepted, response.duplicates, response.rejected)
    assert counts == tuple(map(outcomes.count, (STORED, DUPLICATE, REJECTED)))
    refused = [(r.index, r.reason) for r in response.receipts if r.outcome == REJECTED]
    assert refused == [(error.index, error.reason) for error in response.errors]
    return [(receipt.outcome, receipt.seq, receipt.reason) for receipt in response.receipts]


def positions(stack: Stack, account: Account) -> dict[int, str]:
    """Names by position, as ListEvents shows them."""
    items = over_rest(stack, LIST, {"project_id": account.project_id, "limit": 200}, machine(account)).response.items
    return {item.seq: item.name for item in items}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_event_has_its_receipt_and_its_position_in_the_list(
    stack: Stack, account: Account, transport: str
) -> None:
    assert receipts(stack, account, [KEYED, {"name": "first"}], transport) == [(STORED, 1, ""), (STORED, 2, "")]
    events = [
        {"name": ""},
        {"name": "a"},
        KEYED,
        {"name": "b", "idempotency_key": "new"},
        {"name": "x" * 201},
        {"name": "b", "idempotency_key": "new"},
        {"name": "c", "ts": "1999-01-01T00:00:00Z"},
        {"name": "d"},
    ]
    assert receipts(stack, account, events, transport) == [
        (REJECTED, 0, Reason.FIELD_REQUIRED),
        (STORED, 3, ""),
        (DUPLICATE, 0, ""),
        (STORED, 4, ""),
        (REJECTED, 0, Reason.FIELD_TOO_LONG),
        (DUPLICATE, 0, ""),
        (REJECTED, 0, Reason.TS_OUT_OF_RANGE),
        (STORED, 5, ""),
    ]
    assert positions(stack, account) == {1: "paid", 2: "first", 3: "a", 4: "b", 5: "d"}


@pytest.mark.parametrize("transport", [over_rest, over_native_grpc])
def test_a_replay_of_a_signed_request_is_told_duplicates(stack: Stack, account: Account, transport: Any) -> None:
    fields = {"project_id": account.project_id, "events": [{"name": "a"}, {"name": "b"}], "return_receipts": True}
    kept: dict[str, str] = {}

    def sign(method: str, path: str, body: bytes) -> dict[str, str]:
        return kept or kept.update(machine(account)(method, path, body)) or kept

    told = [[r.outcome for r in transport(stack, INGEST, fields, sign).response.receipts] for _ in range(3)]
    assert told == [[STORED] * 2, [DUPLICATE] * 2, [DUPLICATE] * 2]


def test_receipts_come_only_where_they_are_asked_for(stack: Stack, account: Account) -> None:
    for asked in ({}, {"return_receipts": False}):
        fields = {"project_id": account.project_id, "events": [{"name": "a"}, {"name": ""}], **asked}
        for transport in (over_rest, over_native_grpc):
            response = transport(stack, INGEST, fields, machine(account)).response
            assert (response.accepted, len(response.errors), len(response.receipts)) == (1, 1, 0)


def test_receipts_of_a_full_batch_of_which_half_is_there_already(stack: Stack) -> None:
    account = new_account(stack)
    events = [{"name": f"e{n}", "idempotency_key": f"k{n}"} for n in range(1000)]
    assert {outcome for outcome, _, _ in receipts(stack, account, events[::2])} == {STORED}
    told = receipts(stack, account, events, "native gRPC")
    assert told[::2] == [(DUPLICATE, 0, "")] * 500
    assert told[1::2] == [(STORED, seq, "") for seq in range(501, 1001)]
    assert (
        positions(stack, account).items()
        <= {
            **{n // 2 + 1: f"e{n}" for n in range(0, 1000, 2)},
            **{501 + n // 2: f"e{n}" for n in range(1, 1000, 2)},
        }.items()
    )
