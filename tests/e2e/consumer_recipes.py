"""How to provoke the reasons that come of two streams of one consumer."""

from collections.abc import Callable

import grpc
from conftest import Account
from credentials import machine
from outcomes import Outcome, grpc_outcome
from surface import RPCS
from transports import TIMEOUT_SECONDS, over_grpc

from nimbus_server.errors import Reason

SUBSCRIBE = RPCS["StreamService.SubscribeEvents"]


def busy(target: str, account: Account) -> Outcome:
    """What becomes of the second stream."""
    return _two(target, account, take_over=False)[1]


def taken_over(target: str, account: Account) -> Outcome:
    """What becomes of the first stream."""
    return _two(target, account, take_over=True)[0]


def _two(target: str, account: Account, *, take_over: bool) -> tuple[Outcome, Outcome]:
    """What becomes of two streams; the first one is given up where the second is refused."""
    conflict = "TAKE_OVER" if take_over else "REFUSE"
    fields = {"consumer": "billing", "consumer_conflict": f"CONSUMER_CONFLICT_{conflict}"}
    request = SUBSCRIBE.request(project_id=account.project_id, **fields)
    body = request.SerializeToString()
    with grpc.insecure_channel(target) as channel:
        method = channel.unary_stream(SUBSCRIBE.wire, response_deserializer=SUBSCRIBE.response.FromString)
        headers = machine(account)("POST", SUBSCRIBE.wire, body)
        first = method(body, timeout=TIMEOUT_SECONDS, metadata=tuple(headers.items()))
        next(first)
        second = over_grpc(target, SUBSCRIBE, request, machine(account))
        if second.failure is None:
            try:
                for _ in first:
                    pass
            except grpc.RpcError as error:
                trailers = dict(error.trailing_metadata() or ())
                return grpc_outcome(None, error.code().value[0], error.details() or "", trailers), second
        return Outcome(), second


CONSUMER_RECIPES: dict[Reason, Callable[[str, Account], Outcome]] = {
    Reason.CONSUMER_BUSY: busy,
    Reason.CONSUMER_TAKEN_OVER: taken_over,
}
