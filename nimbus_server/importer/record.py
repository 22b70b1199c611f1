"""What the forms of files have in common: each gives records, which hold an event as POST /v1/events takes it."""

from functools import partial
from typing import Any, NamedTuple

from nimbus_server.errors import Reason
from nimbus_server.ingest.event import EventRefusedError


class Record(NamedTuple):
    """What stands at one place of a file: an event, or why there is none; a tuple, as NewEvent.

    `line` is the number of its first line, from 1. `raw` are its bytes without the last line end. `content` may have
    an `id` beside the fields of an event, and `ts` may be a number.
    """

    line: int
    raw: bytes
    content: dict[str, Any] | EventRefusedError


# A third of the time of calling Record.
new_record = partial(tuple.__new__, Record)


def unparsable(message: str) -> EventRefusedError:
    """The refusal of a record that is no event at all."""
    return EventRefusedError("", Reason.REQUEST_UNPARSABLE, message)


class UnreadableError(EventRefusedError):
    """The refusal of lines in which no event can be found.

    `lines` is how many they are, `whole` whether the record has all of their text, `to_end` whether they are all that
    follows in the file.
    """

    def __init__(self, message: str, lines: int, *, whole: bool, to_end: bool = False) -> None:
        super().__init__("", Reason.REQUEST_UNPARSABLE, message)
        self.lines = lines
        self.whole = whole
        self.to_end = to_end
