"""Questions in tests: how they are asked, and large logs to ask about."""

from collections.abc import Callable
from typing import Any

import psycopg
from conftest import Account, Stack
from credentials import person
from outcomes import Outcome
from surface import RPCS
from test_supervision import wait_until
from transports import Transport, over_native_grpc

from nimbus_server.errors import Reason

# Events `n0` to `n19` of 1,000 people, one a second up to now, by rising position. `props.long` differs in each.
FILL = """
INSERT INTO events (project_id, ts, id, seq, received_at, name, user_id, props)
SELECT %(project)s, now() - i * interval '1 second', gen_random_uuid(), s.last_seq + i, now(), 'n' || i %% 20,
    'u' || i %% 1000, jsonb_build_object('plan', 'p' || i %% 5, 'amount', i, 'long', repeat(md5(i::text), %(md5s)s))
FROM streams s, generate_series(1, %(count)s) i WHERE s.project_id = %(project)s
"""
ADVANCE = "UPDATE streams SET last_seq = last_seq + %s WHERE project_id = %s"


def fill(stack: Stack, account: Account, count: int, md5s: int = 1) -> None:
    """Append events to a log as fast as PostgreSQL can, of the last `count` seconds."""
    with psycopg.connect(stack.dsn()) as connection:
        connection.execute("SELECT FROM streams WHERE project_id = %s FOR UPDATE", (account.project_id,))
        connection.execute(FILL, {"project": account.project_id, "count": count, "md5s": md5s})
        connection.execute(ADVANCE, (count, account.project_id))


def ask(stack: Stack, account: Account, rpc: str, transport: Transport = over_native_grpc, **fields: Any) -> Outcome:
    """What becomes of a question that a person asks about their project."""
    return transport(
        stack, RPCS[f"AnalysisService.{rpc}"], {"project_id": account.project_id, **fields}, person(account)
    )


def answer(stack: Stack, account: Account, rpc: str, **fields: Any) -> Any:
    """The response to a question."""
    outcome = ask(stack, account, rpc, **fields)
    assert outcome.failure is None, outcome.failure
    return outcome.response


def names(stack: Stack, account: Account) -> dict[str, int]:
    """How many events of each name there are, by the analyst."""
    return {info.name: info.events for info in answer(stack, account, "ListEventNames").names}


def until_it_answers(stack: Stack, account: Account) -> None:
    """Wait until there is an analyst."""
    until_answered(lambda: ask(stack, account, "ListEventNames"))


def until_answered(question: Callable[[], Outcome]) -> None:
    """Ask until there is an analyst; any other failure fails the test."""

    def answered() -> bool:
        failure = question().failure
        assert failure is None or failure.reason == Reason.ANALYST_UNAVAILABLE, failure
        return failure is None

    wait_until(answered)
