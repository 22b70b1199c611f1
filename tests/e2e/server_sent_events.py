"""Server-sent events, read as https://html.spec.whatwg.org/multipage/server-sent-events.html says."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import requests
from conftest import Account, Stack
from credentials import Credentials

SILENCE_SECONDS_MAX = 20


@dataclass(frozen=True)
class Sent:
    """One message."""

    id: str
    event: str
    data: Any


@dataclass
class Source:
    """A stream that is open."""

    response: requests.Response
    messages: Iterator[Sent]

    def events(self, count: int) -> list[Any]:
        """The data of so many events, whatever else is said between them."""
        found: list[Any] = []
        deadline = time.monotonic() + SILENCE_SECONDS_MAX
        while len(found) < count:
            assert time.monotonic() < deadline, f"only {len(found)} of {count} events in time"
            sent = next(self.messages)
            if sent.event == "event":
                assert sent.id == sent.data["seq"]
                found.append(sent.data)
            else:
                assert (sent.event, sent.data) == ("position", {"position": sent.id})
        return found


def path_of(account: Account, **query: object) -> str:
    return "/v1/events/stream?" + urlencode({"project_id": account.project_id, **query}, doseq=True)


def read(lines: Iterable[str]) -> Iterator[Sent]:
    """The messages in lines."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Sent(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}


@contextmanager
def opened(
    stack: Stack, account: Account, who: Credentials, last_event_id: str = "", /, **query: object
) -> Iterator[Source]:
    """A stream that has begun: the position where it starts has been read."""
    path = path_of(account, **query)
    headers = who("GET", path, b"") | ({"last-event-id": last_event_id} if last_event_id else {})
    with requests.get(stack.url + path, headers=headers, stream=True, timeout=SILENCE_SECONDS_MAX) as response:
        assert response.status_code == 200, response.text
        # As bytes: text would be split where it has separators of lines other than LF.
        source = Source(response, read(line.decode() for line in response.iter_lines(chunk_size=None)))
        first = next(source.messages)
        assert (first.event, first.data) == ("position", {"position": first.id})
        yield source
