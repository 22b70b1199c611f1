"""The ways in: one batch a call, or a stream of them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.clock import Clock, micros
from nimbus_server.errors import NimbusError, Reason, field_error, worker_unavailable
from nimbus_server.ingest.compression import unpack
from nimbus_server.ingest.decode_json import decode_json, parse_json
from nimbus_server.ingest.decode_proto import UnparsableEvent, decode_proto
from nimbus_server.ingest.pipeline import Ingest, Submitted
from nimbus_server.ingest.reading import ReadBatch, Reader, SentBatch
from nimbus_server.ingest.receipt import Receipt
from nimbus_server.ingest.wire import split_events
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.rpc.call import current_call
from nimbus_server.rpc.fields import time_field, uuid_field
from nimbus_server.rpc.json_body import refuse_query
from nimbus_server.rpc.registry import BATCH_BYTES_MAX, Unread

# Batches of a stream that are read before the first of them is acknowledged.
STREAM_AHEAD = 8


class IngestService:
    """Implements the ingest RPCs of nimbus.v1.EventService. Errors are those that the proto names for each.

    Events older than `retention_days` are refused, where given.
    """

    def __init__(self, access: ProjectAccess, ingest: Ingest, clock: Clock, retention_days: int | None = None) -> None:
        self._requests = Reader(access, clock, retention_days)
        self._ingest = ingest
        self._readers: set[asyncio.Task[None]] = set()
        self._draining = False

    def end_streams(self) -> None:
        """Read no further from any stream; each ends when what it has read is acknowledged."""
        self._draining = True
        for reader in self._readers:
            reader.cancel()

    async def IngestEvents(self, request: Unread) -> pb.IngestEventsResponse:
        call = current_call.get()
        if call.rest_path is None:
            read = await self._requests.read(request.raw, partial(_single, request), seconds_left=call.seconds_left)
        else:
            refuse_query(call.rest_path)
            encoding = call.metadata.get("content-encoding", "")
            parse = partial(_json, request, encoding)
            packed = bool(encoding)
            read = await self._requests.read(request.raw, parse, packed=packed, seconds_left=call.seconds_left)
        answer = _Answer(read)
        return answer.of(await self._ingest.store(read.project, read.batch, read.origin, call.seconds_left))

    async def IngestEventStream(
        self, requests: AsyncGenerator[Unread, None]
    ) -> AsyncGenerator[pb.IngestEventStreamResponse, None]:
        if self._draining:
            raise worker_unavailable()
        # Answers and the batches that wait for their commit; None for the end.
        submitted: asyncio.Queue[tuple[_Answer, Submitted] | None] = asyncio.Queue()
        ahead = asyncio.Semaphore(STREAM_AHEAD)
        reader = asyncio.create_task(self._read_stream(requests, submitted, ahead))
        reader.add_done_callback(lambda _: submitted.put_nowait(None))
        self._readers.add(reader)
        number = 0
        try:
            while one := await submitted.get():
                receipt = await self._ingest.receipt(one[1])
                number += 1
                yield pb.IngestEventStreamResponse(batch=number, result=one[0].of(receipt))
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
        requests: AsyncGenerator[Unread, None],
        submitted: "asyncio.Queue[tuple[_Answer, Submitted] | None]",
        ahead: asyncio.Semaphore,
    ) -> None:
        number, project = 0, None
        await ahead.acquire()
        async with aclosing(requests):
            async for request in requests:
                number += 1
                parse = partial(_next, request, project)
                read = await self._requests.read(request.raw, parse, number=number)
                project = read.project
                answer = _Answer(read)
                waiting = await self._ingest.submit(project, read.batch, read.origin, waits_for_room=True)
                submitted.put_nowait((answer, waiting))
                await ahead.acquire()


def _json(request: Unread, encoding: str) -> SentBatch:
    json = parse_json(unpack(request.parse(request.raw).http_body.data, encoding, BATCH_BYTES_MAX))
    project = uuid_field("project_id", json.project_id)
    return SentBatch(project, json.events, json.sent_at, json.return_receipts, decode_json)


def _single(request: Unread) -> SentBatch:
    message, events = _parse(request)
    if message.HasField("http_body"):
        raise field_error(Reason.FIELD_INVALID, "http_body", "http_body is for the REST gateway: send events instead.")
    return _sent(message, events, uuid_field("project_id", message.project_id))


def _next(request: Unread, project: UUID | None) -> SentBatch:
    message, events = _parse(request)
    named = uuid_field("project_id", message.project_id) if message.project_id or project is None else project
    if project not in {None, named}:
        raise field_error(Reason.FIELD_INVALID, "project_id", "project_id must not change within a stream.")
    return _sent(message, events, named)


def _parse(request: Unread) -> tuple[Any, Sequence[Any]]:
    """The message, and its events: where one of them can't be parsed, it alone is unparsable."""
    try:
        message = request.parse(request.raw)
    except NimbusError as error:
        try:
            rest, events = split_events(request.raw)
        except ValueError:
            raise error from None
        if not events:
            raise
        return request.parse(rest), [_parse_event(event) for event in events]
    return message, message.events


def _parse_event(raw: bytes) -> pb.Event | UnparsableEvent:
    try:
        return pb.Event.FromString(raw)
    except DecodeError:
        return UnparsableEvent()


def _sent(message: Any, events: Sequence[Any], project: UUID) -> SentBatch:
    sent_at = micros(time_field("sent_at", message.sent_at)) if message.HasField("sent_at") else None
    return SentBatch(project, events, sent_at, message.return_receipts, decode_proto)


class _Answer:
    """The answer to a batch, made before its commit as far as it can be.

    An answer that failed after the commit would have the client send again what is stored.
    """

    def __init__(self, read: ReadBatch) -> None:
        self._read = read
        self._errors = [
            pb.EventError(index=r.index, field=r.field, reason=r.reason.value, message=r.message)
            for r in read.batch.refusals
        ]

    def of(self, receipt: Receipt) -> pb.IngestEventsResponse:
        """The whole answer."""
        return pb.IngestEventsResponse(
            accepted=receipt.accepted,
            duplicates=receipt.duplicates,
            rejected=len(self._errors),
            errors=self._errors,
            receipts=_receipts(receipt, self._read.count) if self._read.return_receipts else (),
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
