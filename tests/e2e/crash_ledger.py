"""What clients sent and what they were told: files that are written before each sending and at each acknowledgement."""

from collections import Counter
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Self, TextIO

from nimbus.v1.event_service_pb2 import IngestEventsResponse


class Ledger:
    """Events by number, each with the tick at which it was sent first or acknowledged; ticks only grow.

    `accepted` is what the answers counted for each project, `refused` what was refused for good and why.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.sent_file, self.acked_file = folder / "sent", folder / "acked"
        self._sent: TextIO = self.sent_file.open("w")
        self._acked: TextIO = self.acked_file.open("w")
        self._ticks, self._next_event = count(), 0
        self.sent_events = self.acked_events = self.duplicates = self.failed_attempts = 0
        self.accepted: Counter[str] = Counter()
        self.acked_batches: Counter[str] = Counter()
        self.refused: list[str] = []

    def new_events(self, events: int) -> range:
        """Numbers that no event has yet."""
        self._next_event += events
        return range(self._next_event - events, self._next_event)

    def sent(self, project_id: str, numbers: range) -> None:
        """Note that these are about to be sent."""
        tick = next(self._ticks)
        self.sent_events += len(numbers)
        _append(self._sent, (f"{n}\t{project_id}\t{tick}\n" for n in numbers))

    def acked(self, writer: str, project_id: str, numbers: range, answer: IngestEventsResponse) -> None:
        """Note that the server calls these durable."""
        if answer.rejected or answer.accepted + answer.duplicates != len(numbers):
            self.refused.append(f"{writer}: {len(numbers)} events were answered by {answer}")
            return
        tick = next(self._ticks)
        self.acked_events += len(numbers)
        self.duplicates += answer.duplicates
        self.accepted[project_id] += answer.accepted
        self.acked_batches[writer] += 1
        _append(self._acked, (f"{n}\t{tick}\n" for n in numbers))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sent.close()
        self._acked.close()


def _append(file: TextIO, lines: Iterable[str]) -> None:
    file.writelines(lines)
    file.flush()
