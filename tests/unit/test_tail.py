"""What `nimbus tail` makes of what is typed, and of what somebody sent."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from test_times import FORMS, NO_TIMES, NOON

from nimbus_client import StoredEvent
from nimbus_server.errors import StartupError
from nimbus_server.tail.command import moment
from nimbus_server.tail.show import json_of, line_of
from nimbus_server.terminal import visible
from nimbus_server.times import read_time

NOW = datetime(2026, 1, 2, 12, 0, 0, 7_000, tzinfo=UTC)
EVENT = StoredEvent("i", 7, "sign\tup", None, {"n": 2**70, "é": "\x1b\n"}, NOW, None, NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("10m", NOW - timedelta(minutes=10)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-01-01", datetime(2026, 1, 1).astimezone()),
        ("2026-01-01T12:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00+02:00", datetime(2026, 1, 1, 10, tzinfo=UTC)),
    ],
)
def test_since_is_a_time_or_how_long_ago(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


@pytest.fixture
def kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of another zone."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("kolkata")
@pytest.mark.parametrize("text", FORMS)
def test_since_takes_each_form_of_a_time_and_is_of_this_zone_without_an_offset(text: str) -> None:
    in_utc = moment(text, NOW)
    assert in_utc == (NOON if read_time(text).tzinfo else NOON - timedelta(hours=5, minutes=30))


@pytest.mark.parametrize("text", [text for text in NO_TIMES if text != "2025-11-01"])
def test_since_takes_no_other_form_but_a_date(text: str) -> None:
    with pytest.raises(StartupError, match="--since takes"):
        moment(text, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "10 m",
        "-1m",
        "yesterday",
        "999999999d",
        "2026-13-01",
        "\uff11m",
        "0001-01-01T00:00+01:00",
        "2026-W01-1",
    ],
)
def test_any_other_since_is_refused(text: str) -> None:
    with pytest.raises(StartupError, match="--since takes"):
        moment(text, NOW)


def test_nothing_that_was_sent_commands_a_terminal() -> None:
    assert visible("plain é 日本 🎉") == "plain é 日本 🎉"
    assert visible("\x1b]0;x\x07\x9b1m\u202e\r\n") == r"\x1b]0;x\x07\x9b1m\u202e\r\n"
    assert all(c.isprintable() for c in line_of(EVENT).plain)


def test_a_line_for_people_shows_what_there_is() -> None:
    at = f"{NOW.astimezone():%Y-%m-%d %H:%M:%S}.007"
    assert line_of(EVENT).plain == f'       7  {at}  sign\\tup  -  {{"n":{2**70},"é":"\\u001b\\n"}}'


def test_a_line_for_programs_loses_nothing() -> None:
    line = json_of(EVENT)
    assert b"\n" not in line
    assert json.loads(line) == {
        "seq": 7,
        "id": "i",
        "name": "sign\tup",
        "ts": "2026-01-02T12:00:00.007000Z",
        "user_id": None,
        "props": EVENT.props,
        "idempotency_key": None,
        "received_at": "2026-01-02T12:00:00.007000Z",
        "anonymous_id": None,
        "context": {},
    }
