"""Events on their way from one process to another, packed: a fifth of the time of pickling them as they are."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, repeat

from nimbus_server.ingest.decode import new_event
from nimbus_server.ingest.event import NewEvent

ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Columns:
    """Events, none of them floating, column by column.

    `names` are the different ones, `name_numbers` say which is whose. `ends` are where each one's texts end in `texts`.
    """

    places: "array[int]"
    ids: bytes
    tss: "array[int]"
    names: list[str]
    name_numbers: "array[int]"
    texts: bytes
    ends: "array[int]"

    @classmethod
    def of(cls, events: Sequence[NewEvent]) -> "Columns":
        """Pack events."""
        names = {name: number for number, name in enumerate({event.name for event in events})}
        return cls(
            array("H", [event.place for event in events]),
            b"".join([event.id for event in events]),
            array("q", [event.ts for event in events]),
            list(names),
            array("H", [names[event.name] for event in events]),
            b"".join([event.texts for event in events]),
            array("L", accumulate([len(event.texts) for event in events])),
        )

    def events(self) -> list[NewEvent]:
        """The events."""
        ids = [self.ids[at : at + ID_BYTES] for at in range(0, len(self.ids), ID_BYTES)]
        names = map(self.names.__getitem__, self.name_numbers)
        texts = [self.texts[begin:end] for begin, end in pairwise((0, *self.ends))]
        return list(map(new_event, zip(self.places, ids, self.tss, repeat(False), names, texts)))
