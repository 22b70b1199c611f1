"""What a client may send that it should not, and what every answer to it must look like."""

import json
from typing import Any

from conftest import Account
from outcomes import Answer, rest_failure
from surface import Route

INTERNALS = (b"Traceback", b"psycopg", b"SELECT ", b"INSERT ", b'File "', b"relation ", b"sqlstate", b"/site-packages/")

# JSON as text, so that it may hold what json.dumps would not write.
WRONG_JSON_VALUES = {
    "null": "null",
    "true": "true",
    "zero": "0",
    "a negative number": "-1",
    "a fraction": "1.5",
    "a number beyond 64 bits": "123456789012345678901234567890",
    "a number beyond doubles": "1e400",
    "an empty string": '""',
    "a blank string": '"  "',
    "some text": '"x"',
    "NUL": '"a\\u0000b"',
    "a lone surrogate": '"a\\ud800b"',
    "a long string": '"' + "x" * 100_000 + '"',
    "a bad UUID": '"00000000-0000-0000-0000-00000000000g"',
    "someone else's UUID": '"00000000-0000-0000-0000-000000000000"',
    "SQL": '"\'; DROP TABLE users; --"',
    "an empty array": "[]",
    "an array of arrays": "[[], [[]]]",
    "an array of nulls": "[null]",
    "an object": '{"a": {"b": [1, null]}}',
}
WRONG_BODIES = {
    "no bytes": b"",
    "blanks": b"  \n",
    "broken JSON": b'{"name": ',
    "two objects": b"{}{}",
    "an array": b"[]",
    "a string": b'"x"',
    "a number": b"1",
    "null": b"null",
    "NaN": b"NaN",
    "single quotes": b"{'name': 'x'}",
    "an unknown field": b'{"nmae": "x"}',
    "an unknown field with a NUL": b'{"a\\u0000": 1}',
    "a gateway's field": b'{"json_body": {"data": "e30="}, "http_body": {"data": "e30="}}',
    "camel case": b'{"projectId": "x", "graceSeconds": 1}',
    "bad UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"name": "x"}',
    "protobuf": b"\x0a\x03abc",
    "a form": b"name=x&email=y",
    "deep arrays": b'{"name": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep objects": b'{"name":' * 50_000 + b"1" + b"}" * 50_000,
    "ten megabytes": b'{"name": "' + b"x" * 10_000_000 + b'"}',
}
WRONG_QUERY_VALUES = (
    "",
    "%20",
    "x",
    "-1",
    "0",
    "1.5",
    "1e400",
    "99999999999999999999999",
    "%00",
    "%ff",
    "%C3%28",
    "%F0%9F%98%80",
    "%ED%A0%80",
    "%zz",
    "%",
    "%25%30%30",
    "null",
    "[]",
    "%7B%7D",
    "%7B%22a%22%3A%22%5Cu0000%22%7D",
    "%7B%22a%22%3A%22%5Cud800%22%7D",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "10000-01-01T00:00:00Z",
    "2025-02-30T00:00:00Z",
    "00000000-0000-0000-0000-000000000000",
    "'%20OR%201=1--",
    "x" * 20_000,
)
WRONG_IDS = (
    "x",
    "%00",
    "%ff",
    "%2e%2e",
    "%2F",
    "..%2f..",
    "%25",
    "%zz",
    "'--",
    "%F0%9F%98%80",
    "00000000-0000-0000-0000-000000000000",
    "00000000-0000-0000-0000-00000000000g",
    "{00000000-0000-0000-0000-000000000000}",
    "x" * 20_000,
)


SELECTOR = {"names": ["page_view"]}
# For each field of a question's JSON body, by its name; some names mean different things in different questions.
OF_QUESTIONS: dict[str, Any] = {
    "range": {"last": "7d"},
    "timezone": "UTC",
    "min_position": 0,
    "preset": "POSTHOG",
    "series": [{"selector": SELECTOR}],
    "bucket": "1d",
    "week_start": "MONDAY",
    "breakdowns": ["props.plan"],
    "breakdown_limit": 5,
    "formulas": [{"expression": "A * 2"}],
    "compare_to": {"previous": True},
    "within": "7d",
    "completes": "AFTER_RANGE",
    "entry": "ANY",
    "order": "ORDERED",
    "tie_seconds": 0,
    "exclusions": [{"selector": SELECTOR}],
    "on_exclusion": "STOP",
    "hold_constant": ["props.plan"],
    "counting": "PEOPLE",
    "breakdown": {"property": "props.plan"},
    "unit": "DAY",
    "periods": 3,
    "cohort_by": "EVERY",
    "alignment": "CALENDAR",
    "brackets": [],
    "mean": "POOLED",
    "measure": "EVENTS",
    "property": "",
    "start": SELECTOR,
    "return": SELECTOR,
    "anchor": SELECTOR,
    "nodes": SELECTOR,
    "direction": "AFTER",
    "collapse_repeats": True,
    "node": "name",
    "limit": 5,
    "page_size": 5,
    "page_token": "",
}
OF_QUESTION: dict[str, dict[str, Any]] = {
    "funnel": {"steps": [{"selector": SELECTOR}, {"selector": SELECTOR}]},
    "paths": {"steps": 2},
    "retention": {"counting": "ON"},
}


def good_values(account: Account, route: Route) -> dict[str, Any]:
    """A good value for each field of a route's JSON body, by its name."""
    return {
        "email": account.email,
        "password": account.password,
        "name": "a name",
        "grace_seconds": 60,
        "project_id": account.project_id,
        "events": [{"name": "page_view"}],
        "sent_at": "2026-01-02T03:04:05Z",
        "return_receipts": True,
        "ttl_seconds": 60,
        "position": 0,
        "rewind": True,
        **OF_QUESTIONS,
        **OF_QUESTION.get(route.path.rpartition("/")[2], {}),
    }


def body_with(route: Route, account: Account, wrong: dict[str, str]) -> bytes:
    """A body of the route's fields, all good but those in `wrong`, which are JSON texts."""
    assert route.body_schema is not None
    good = good_values(account, route)
    texts = {name: json.dumps(good[name]) for name in route.body_schema.get("properties", {})} | wrong
    return ("{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items()) + "}").encode()


def check_answer(answer: Answer, what: object) -> None:
    """An answer to anything at all: a success or the client's error, in the documented form, nothing internal in it."""
    assert 200 <= answer.status < 300 or 400 <= answer.status < 500, (what, answer)
    assert not [word for word in INTERNALS if word in answer.body], (what, answer)
    if answer.status >= 400:
        failure = rest_failure(answer)
        assert failure.reason, (what, answer)
        assert failure.message, (what, answer)
