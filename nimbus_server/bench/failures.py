"""What the answer to a call says: how many events are stored, or why it failed."""

import grpc
import orjson
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from nimbus.v1.event_service_pb2 import IngestEventsResponse
from nimbus_server.bench.load import FailedError

DETAILS_KEY = "grpc-status-details-bin"


def failure_of(error: grpc.aio.AioRpcError) -> FailedError:
    """Its reason as Nimbus gives it, or the gRPC code where it is not from Nimbus."""
    return FailedError(_reason(error) or error.code().name, error.details() or "")


def http_failure(status: int, body: bytes) -> FailedError:
    """The same of an HTTP answer that is not 200."""
    try:
        answer = orjson.loads(body)
        return FailedError(answer["details"][0]["reason"], answer["message"])
    except (ValueError, LookupError, TypeError):
        return FailedError(f"HTTP {status}", "The answer is not from Nimbus.")


def stored_over_http(status: int, body: bytes) -> int:
    """How many events the answer says are stored. Raises FailedError where it is an error, or refuses any."""
    if status != 200:
        raise http_failure(status, body)
    try:
        answer = orjson.loads(body)
        if answer["rejected"]:
            raise FailedError(answer["errors"][0]["reason"], answer["errors"][0]["message"])
        return int(answer["accepted"]) + int(answer["duplicates"])
    except (ValueError, LookupError, TypeError):
        raise http_failure(status, body) from None


def stored(response: IngestEventsResponse) -> int:
    """How many events the response says are stored. Raises FailedError where it refused any."""
    if response.rejected:
        raise FailedError(response.errors[0].reason, response.errors[0].message)
    return response.accepted + response.duplicates


def _reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata():
        if key == DETAILS_KEY:
            status, info = Status(), ErrorInfo()
            try:
                status.ParseFromString(bytes(value) if isinstance(value, bytes) else b"")
                if any(detail.Unpack(info) for detail in status.details):
                    return str(info.reason)
            except DecodeError:
                pass
    return ""
