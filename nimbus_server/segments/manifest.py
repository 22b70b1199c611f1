"""What the manifest says: which files hold a project's log, and up to which position."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from nimbus_server.analyses.literal import literal

IdentityField = Literal["user_id", "anonymous_id"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of events that never changes.

    The positions from `first_seq` to `last_seq` need not all be in it. `columns` are the promoted properties by their
    canonical paths, each with the kinds of its values: some of `s`, `n`, `b` and `j` (see columns.py).
    """

    id: UUID
    first_seq: int
    last_seq: int
    ts_min: datetime
    ts_max: datetime
    rows: int
    bytes: int
    columns: dict[str, str]


@dataclass(frozen=True, slots=True)
class Erasure:
    """Events up to position `upto` whose `field` has this value are being deleted, and must not be shown."""

    field: IdentityField
    value: str
    upto: int

    @property
    def kept(self) -> str:
        """SQL: whether an event stays, never NULL."""
        return f"({self.field} IS DISTINCT FROM {literal(self.value)} OR seq > {self.upto})"


@dataclass(frozen=True, slots=True)
class Mark:
    """What an export begins with: positions up to `exported` are in segments, the log goes up to `log_end`."""

    exported: int
    log_end: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a question needs to see one state of a log.

    Positions up to `exported` are in `segments`, of which only those that overlap the time asked for are listed.
    Positions behind it up to `log_end` are to be read from `events`; nothing behind `log_end` counts. `at` is the
    database's clock.
    """

    exported: int
    log_end: int
    segments: tuple[Segment, ...]
    erasures: tuple[Erasure, ...]
    at: datetime


def segments_folder(data: Path) -> Path:
    """Where the segments of all projects lie in a data folder."""
    return data / "segments"


def segment_path(folder: Path, project_id: UUID, segment_id: UUID) -> Path:
    """The file of a segment; `folder` as segments_folder gives it."""
    return folder / str(project_id) / f"{segment_id}.parquet"
