"""The ways in: one batch a call, or a stream of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.accounts.caller import Machine, caller
from nimbus_server.clock import DAY, Clock, micros
from nimbus_server.errors import Reason, field_error, worker_unavailable
from nimbus_server.ingest import identity
from nimbus_server.ingest.compression import unpack
from nimbus_server.ingest.decode import Batch, Origin, check_count
from nimbus_server.ingest.decode_json import decode_json, parse_json
from nimbus_server.ingest.decode_proto import decode_proto
from nimbus_server.ingest.event import TS_MIN
from nimbus_server.ingest.pipeline import Ingest, Receipt, Submitted
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.rpc.call import current_call
from nimbus_server.rpc.fields import time_field, uuid_field
from nimbus_server.rpc.json_body import refuse_query
from nimbus_server.rpc.registry import BATCH_BYTES_MAX

# Events of a request that are decoded in one go, in one or two milliseconds.
SLICE_EVENTS = 200
# Batches of a stream that are read before the first of them is acknowledged.
STREAM_AHEAD = 8


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A request with its events still unread; `sent_at` in microseconds since 1970."""

    project_id: str
    events: Sequence[Any]
    sent_at: int | None
    return_receipts: bool
    decode: Callable[[Sequence[Any], Origin, int], Batch]


class IngestService:
    """Implements the ingest RPCs of nimbus.v1.EventService. Errors are those that the proto names for each.

    Events older than `retention_days` are refused, where given.
    """

    def __init__(self, access: ProjectAccess, ingest: Ingest, clock: Clock, retention_days: int | None = None) -> None:
        self._access = access
        self._ingest = ingest
        self._clock = clock
        self._retention = None if retention_days is None else retention_days * DAY
        self._readers: set[asyncio.Task[None]] = set()
        self._draining = False
        self._large = asyncio.Lock()

    def end_streams(self) -> None:
        """Read no further from any stream; each ends when what it has read is acknowledged."""
        self._draining = True
        for reader in self._readers:
            reader.cancel()

    async def IngestEvents(self, request: pb.IngestEventsRequest) -> pb.IngestEventsResponse:
        call = current_call.get()
        if call.rest_path is not None:
            refuse_query(call.rest_path)
            sent = _read_json(request.http_body.data, call.metadata.get("content-encoding", ""))
        elif request.HasField("http_body"):
            raise field_error(
                Reason.FIELD_INVALID, "http_body", "http_body is for the REST gateway: send events instead."
            )
        else:
            sent = _read_proto(request)
        project = uuid_field("project_id", sent.project_id)
        batch, origin = await self._decode(project, sent)
        receipt = await self._ingest.store(project, batch, origin, call.deadline_seconds)
        return _response(receipt, sent)

    async def IngestEventStream(
        self, requests: AsyncIterator[pb.IngestEventStreamRequest]
    ) -> AsyncIterator[pb.IngestEventStreamResponse]:
        if self._draining:
            raise worker_unavailable()
        # Sent batches and what waits for their commit; None for the end.
        submitted: asyncio.Queue[tuple[SentBatch, Submitted] | None] = asyncio.Queue()
        ahead = asyncio.Semaphore(STREAM_AHEAD)
        reader = asyncio.create_task(self._read_stream(requests, submitted, ahead))
        reader.add_done_callback(lambda _: submitted.put_nowait(None))
        self._readers.add(reader)
        number = 0
        try:
            while one := await submitted.get():
                receipt = await self._ingest.receipt(one[1])
                number += 1
                yield pb.IngestEventStreamResponse(batch=number, result=_response(receipt, one[0]))
                ahead.release()
            if reader.cancelled():
                raise worker_unavailable()
            reader.result()
        finally:
            self._readers.discard(reader)
            reader.cancel()
            while not submitted.empty():
                if rest := submitted.get_nowait():
                    self._ingest.abandon(rest[1])

    async def _read_stream(
        self,
        requests: AsyncIterator[pb.IngestEventStreamRequest],
        submitted: "asyncio.Queue[tuple[SentBatch, Submitted] | None]",
        ahead: asyncio.Semaphore,
    ) -> None:
        number, named = 0, ""
        await ahead.acquire()
        async for request in requests:
            number, named = number + 1, named or request.project_id
            if request.project_id not in {"", named}:
                raise field_error(Reason.FIELD_INVALID, "project_id", "project_id must not change within a stream.")
            project, sent = uuid_field("project_id", named), _read_proto(request)
            batch, origin = await self._decode(project, sent, number)
            submitted.put_nowait((sent, await self._ingest.submit(project, batch, origin, waits_for_room=True)))
            await ahead.acquire()

    async def _decode(self, project: UUID, sent: SentBatch, number: int = 0) -> tuple[Batch, Origin]:
        """The batch and where it comes from, if the caller may write to the project; `number` is that in a stream."""
        who = caller()
        await self._access.require(who, project)
        received_at = micros(self._clock())
        machine = who if isinstance(who, Machine) else None
        origin = Origin(
            received_at=received_at,
            default_ts=micros(machine.signed_at) if machine else received_at,
            id_prefix=identity.signed(machine.signature, number) if machine else identity.fresh(received_at),
            repeatable=machine is not None,
            key_id=machine.key_id if machine else None,
            skew=None if sent.sent_at is None else received_at - sent.sent_at,
            ts_min=TS_MIN if self._retention is None else max(TS_MIN, received_at - self._retention),
        )
        check_count(len(sent.events))
        if len(sent.events) <= SLICE_EVENTS:
            return sent.decode(sent.events, origin, 0), origin
        batch = Batch([], [])
        # One large request at a time, and others between its slices: above all the writer, which PostgreSQL waits for.
        async with self._large:
            for first in range(0, len(sent.events), SLICE_EVENTS):
                part = sent.decode(sent.events[first : first + SLICE_EVENTS], origin, first)
                batch.events.extend(part.events)
                batch.refusals.extend(part.refusals)
                await asyncio.sleep(0)
        return batch, origin


def _read_json(body: bytes, encoding: str) -> SentBatch:
    body = unpack(body, encoding, BATCH_BYTES_MAX)
    request = parse_json(body)
    return SentBatch(request.project_id, request.events, request.sent_at, request.return_receipts, decode_json)


def _read_proto(request: pb.IngestEventsRequest | pb.IngestEventStreamRequest) -> SentBatch:
    sent_at = micros(time_field("sent_at", request.sent_at)) if request.HasField("sent_at") else None
    return SentBatch(request.project_id, request.events, sent_at, request.return_receipts, decode_proto)


def _response(receipt: Receipt, sent: SentBatch) -> pb.IngestEventsResponse:
    return pb.IngestEventsResponse(
        accepted=receipt.accepted,
        duplicates=receipt.duplicates,
        rejected=len(receipt.refusals),
        errors=[
            pb.EventError(index=r.index, field=r.field, reason=r.reason.value, message=r.message)
            for r in receipt.refusals
        ],
        receipts=_receipts(receipt, len(sent.events)) if sent.return_receipts else (),
    )


def _receipts(receipt: Receipt, count: int) -> list[pb.EventReceipt]:
    reasons = {refusal.index: refusal.reason.value for refusal in receipt.refusals}
    receipts = []
    for index in range(count):
        if index in reasons:
            one = pb.EventReceipt(index=index, outcome=pb.EVENT_OUTCOME_REJECTED, reason=reasons[index])
        elif index in receipt.stored:
            one = pb.EventReceipt(index=index, outcome=pb.EVENT_OUTCOME_STORED, seq=receipt.stored[index])
        else:
            one = pb.EventReceipt(index=index, outcome=pb.EVENT_OUTCOME_DUPLICATE)
        receipts.append(one)
    return receipts
