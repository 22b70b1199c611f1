"""Requests that are far larger parsed than as bytes: one at a time is parsed, and so many bytes are let in at once."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from conftest import Stack, new_account, own_stack
from credentials import machine
from outcomes import Outcome
from surface import RPCS
from test_supervision import processes, wait_until
from transports import over_native_grpc, over_rest

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.errors import Reason
from nimbus_server.rpc.door import BYTES_MAX
from nimbus_server.rpc.registry import BATCH_BYTES_MAX

INGEST = RPCS["EventService.IngestEvents"]
BODY_BYTES = 4 * 1024 * 1024
AT_ONCE = 20
# Of a body, in its worst form.
PARSED_TIMES = 55
# Received, handed over to Python, and unpacked from the message that the edge makes of it.
COPIES = 3
# A field that events don't have: the parser keeps it, and nobody else looks at it.
PADDING_TAG = b"\xa2\x06"


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    with own_stack({"NIMBUS_WORKERS": "1"}) as stack:
        yield stack


def millions_of_messages(project_id: str) -> bytes:
    return pb.IngestEventsRequest(project_id=project_id).SerializeToString() + b"\x12\x00" * (BODY_BYTES // 2)


def millions_of_objects(project_id: str) -> bytes:
    return b'{"project_id": "%s", "events": [{}%s]}' % (project_id.encode(), b",{}" * (BODY_BYTES // 3))


@pytest.mark.parametrize(
    ("send", "body_of"),
    [(over_native_grpc, millions_of_messages), (over_rest, millions_of_objects)],
    ids=["gRPC", "REST"],
)
def test_hostile_requests_at_once_take_the_memory_of_one(
    own: Stack, send: Callable[..., Outcome], body_of: Callable[[str], bytes]
) -> None:
    account, (worker,) = new_account(own), processes(own, "worker-0.sock")
    body, before = body_of(account.project_id), worker.memory_info().rss
    Path(f"/proc/{worker.pid}/clear_refs").write_text("5")  # the peak counts from here on
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda _: send(own, INGEST, body, machine(account)), range(AT_ONCE)))
    assert {o.failure and o.failure.reason for o in outcomes} == {Reason.BATCH_TOO_LARGE}
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text())
    assert found
    assert int(found[1]) * 1024 - before < len(body) * (COPIES * AT_ONCE + PARSED_TIMES)


def test_what_is_more_than_the_door_lets_in_is_told_so_at_once_and_small_requests_go_on(own: Stack) -> None:
    busy, other = new_account(own), new_account(own)
    event = pb.IngestEventsRequest(project_id=busy.project_id, events=[pb.Event(name="n")]).SerializeToString()
    large = event + PADDING_TAG + varint(BATCH_BYTES_MAX - 200) + bytes(BATCH_BYTES_MAX - 200)
    fit = BYTES_MAX // len(large)

    def send(_: int) -> Outcome:
        return over_native_grpc(own, INGEST, large, machine(busy))

    with ThreadPoolExecutor(fit + 4) as pool, psycopg.connect(own.dsn()) as holder:
        holder.execute("SELECT FROM streams WHERE project_id = %s FOR UPDATE", (busy.project_id,))
        calls = [pool.submit(send, n) for n in range(fit + 4)]
        wait_until(lambda: sum(call.done() for call in calls) == 4)
        small = {"project_id": other.project_id, "events": [{"name": "n"}]}
        assert over_native_grpc(own, INGEST, small, machine(other)).response.accepted == 1
        holder.rollback()
        outcomes = [call.result() for call in calls]
    refused = [o.failure for o in outcomes if o.failure]
    assert Counter(f.reason for f in refused) == {Reason.OVERLOADED: 4}
    assert all(f.retry_seconds for f in refused)
    assert over_native_grpc(own, INGEST, large, machine(busy)).response.accepted == 1


def varint(number: int) -> bytes:
    head = b""
    while number >= 0x80:
        head += bytes([number & 0x7F | 0x80])
        number >>= 7
    return head + bytes([number])
