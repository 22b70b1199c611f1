"""The rows of CSV (RFC 4180), each with the lines that it takes. No part of a cell is ever a row.

Where it is not certain any more which quotes open cells and which close them, nothing that follows is read: what looks
like a row there may be text in a cell.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

from nimbus_server.importer.csv_scan import Scan
from nimbus_server.importer.lines import LINE_BYTES_MAX, Lines
from nimbus_server.importer.record import UnreadableError

ROW_BYTES_MAX = LINE_BYTES_MAX
BLANKS = {" ", "\t"}
# Python's reader takes cells of 128 KiB by default, of the whole process.
csv.field_size_limit(ROW_BYTES_MAX)


class HeaderError(Exception):
    """The first row does not name the columns. The text says what is wrong with it."""


# The number of the first line, the bytes without the last line end, and the cells, or why there are none.
Row = tuple[int, bytes, list[str] | UnreadableError]


class _RowTooLargeError(Exception):
    pass


class Rows:
    """The rows that are not blank; to be iterated over once. A quote in a cell that does not begin with one is text."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._upcoming = iter(lines)
        # The lines of the row that is being read.
        self._taken: list[bytes] = []
        self._begin()

    def header(self) -> list[str] | None:
        """The first row, or None where there is none. Raises HeaderError where it can't be read."""
        try:
            for cells in self._cells:
                self._taken.clear()
                if cells:
                    return cells
        except (csv.Error, _RowTooLargeError):
            fault = self._scan(self._taken).fault
            raise HeaderError(fault.what if fault else f"it has more than {ROW_BYTES_MAX:,} bytes") from None
        return None

    def __iter__(self) -> Iterator[Row]:
        taken, lines = self._taken, self._lines
        while True:
            try:
                for cells in self._cells:
                    if cells:
                        raw = b"".join(taken)
                        if (b' "' in raw or b'\t"' in raw) and self._has_quote_after_blank(cells):
                            yield self._unreadable()
                        else:
                            yield lines.number - len(taken) + 1, raw.rstrip(b"\r\n"), cells
                    taken.clear()
            except (csv.Error, _RowTooLargeError):
                yield self._unreadable()
                taken.clear()
            else:
                return

    def _begin(self) -> None:
        # Strict: text after a quote that closes a cell is an error, and does not belong to the cell.
        self._cells = csv.reader(self._text(), strict=True)

    def _text(self) -> Iterator[str]:
        taken, size = self._taken, 0
        for line in self._upcoming:
            size = size + len(line) if taken else len(line)
            taken.append(line)
            if size > ROW_BYTES_MAX:
                raise _RowTooLargeError
            # What is no UTF-8 becomes half characters, for which ingest refuses the field that has them.
            yield line.decode(errors="surrogateescape")

    def _has_quote_after_blank(self, cells: list[str]) -> bool:
        """Whether a cell begins with blanks and a quote: Python's reader takes that for text."""
        return not BLANKS.isdisjoint([cell[:1] for cell in cells]) and self._scan(self._taken).fault is not None

    def _scan(self, pieces: Iterable[bytes]) -> Scan:
        scan = Scan(self._lines.number - len(self._taken) + 1)
        any(map(scan.ends_in, pieces))
        return scan

    def _unreadable(self) -> Row:
        """The refusal of the row that was taken up to something wrong in it, with all that hangs on it."""
        first, text = self._lines.number - len(self._taken) + 1, b"".join(self._taken)
        fault = self._scan(chain(self._taken, self._beyond())).fault
        self._begin()
        # A carriage return where no quotes are leaves no doubt about the next line.
        to_end = fault is not None and (b'"' in text or len(text) > ROW_BYTES_MAX)
        if to_end:
            deque(self._upcoming, maxlen=0)
        last = self._lines.number
        count = last - first + 1
        refused = f"line {first:,} is" if count == 1 else f"lines {first:,} to {last:,} are"
        if fault is None:
            message = f"The row has more than {ROW_BYTES_MAX:,} bytes: {refused} refused."
        else:
            doubt = ", so the cells after it can't be told apart" if to_end else ""
            message = (
                f"{fault.what[0].upper()}{fault.what[1:]}{doubt}: {refused} refused. "
                f"{fault.remedy}, and run the same command again."
            )
        whole = count == len(self._taken) and len(text) <= ROW_BYTES_MAX
        reason = UnreadableError(message, count, whole=whole, to_end=to_end)
        return first, text[:ROW_BYTES_MAX].rstrip(b"\r\n"), reason

    def _beyond(self) -> Iterator[bytes]:
        """What follows the lines that were taken, in pieces."""
        yield from self._lines.rest()
        for line in self._upcoming:
            yield line
            yield from self._lines.rest()
