"""Where the cells and rows of CSV (RFC 4180) begin and end.

Python's reader says so of rows that are in order and of a moderate size. This says it of all others, without keeping
anything of them.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto


class _State(Enum):
    """Where a scan is."""

    CELL = auto()  # at the beginning of a cell
    BLANK = auto()  # after blanks at the beginning of a cell
    PLAIN = auto()  # in a cell without quotes around it, in which a quote is text
    QUOTED = auto()
    QUOTE = auto()  # after a quote in a quoted cell: it closes the cell, or is the first of two
    RETURN = auto()  # after a carriage return outside quotes
    END = auto()
    BLANK_BEFORE_QUOTE = auto()
    TEXT_AFTER_QUOTE = auto()
    TEXT_AFTER_RETURN = auto()


# What does not change the state: at the beginning of a cell, whole cells.
_PLAIN_CELL, _QUOTED_TEXT = rb'[^",\r\n\t ][^,\r\n]*+', rb'(?:[^"]++|"")*+'
_PASSED = {
    _State.CELL: rb'(?:(?:%b|"%b")?+,)*+' % (_PLAIN_CELL, _QUOTED_TEXT),
    _State.BLANK: rb"[ \t]*+",
    _State.PLAIN: rb"[^,\r\n]*+",
    _State.QUOTED: _QUOTED_TEXT,
}
_passed = {state: re.compile(_PASSED.get(state, b"")).match for state in _State}

# The state that a byte leads to; any other byte leads to that of _OTHER.
_OTHER = b""
_AFTER_CELL = {b",": _State.CELL, b"\r": _State.RETURN, b"\n": _State.END}
_NEXT: dict[_State, dict[bytes, _State]] = {
    _State.CELL: {b'"': _State.QUOTED, b" ": _State.BLANK, b"\t": _State.BLANK, **_AFTER_CELL, _OTHER: _State.PLAIN},
    _State.BLANK: {b'"': _State.BLANK_BEFORE_QUOTE, **_AFTER_CELL, _OTHER: _State.PLAIN},
    _State.PLAIN: {**_AFTER_CELL, _OTHER: _State.PLAIN},
    _State.QUOTED: {_OTHER: _State.QUOTE},
    _State.QUOTE: {b'"': _State.QUOTED, **_AFTER_CELL, _OTHER: _State.TEXT_AFTER_QUOTE},
    _State.RETURN: {b"\r": _State.RETURN, b"\n": _State.END, _OTHER: _State.TEXT_AFTER_RETURN},
}

# What is wrong, and how to mend it.
_FAULTS = {
    _State.BLANK_BEFORE_QUOTE: ("line {line} has a blank before the quote that opens a cell", "Remove the blank"),
    _State.TEXT_AFTER_QUOTE: (
        "line {line} has text after the quote that closes the cell opened on line {opened}",
        "Write quotes inside a cell twice",
    ),
    _State.TEXT_AFTER_RETURN: (
        "line {line} has a carriage return within a row, outside quotes",
        "End all lines with LF or CR LF",
    ),
    _State.QUOTED: ("the quote that opens a cell on line {opened} is never closed", "Close it"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row is not CSV: a clause that says what is wrong, and another one that says what to do."""

    what: str
    remedy: str


class Scan:
    """Goes through a row, piece by piece, to its end or to what is wrong with it."""

    def __init__(self, line: int) -> None:
        """`line` is the number of the row's first line."""
        self._line = self._opened = line
        self._state = _State.CELL

    def ends_in(self, piece: bytes) -> bool:
        """Whether the row ends in the piece, which is a line or a part of one, or is not CSV from there on."""
        at = 0
        while self._state in _NEXT:
            at = _passed[self._state](piece, at).end()  # type: ignore[union-attr]  # it matches nothing too
            if at == len(piece):
                break
            leads_to = _NEXT[self._state]
            before, self._state = self._state, leads_to.get(piece[at : at + 1], leads_to[_OTHER])
            at += 1
            if before is _State.CELL and self._state is _State.QUOTED:
                self._opened = self._line
        else:
            return True
        self._line += piece.endswith(b"\n")
        return False

    @property
    def fault(self) -> Fault | None:
        """What is wrong with the row, if what has been read of it is all."""
        if self._state not in _FAULTS:
            return None
        what, remedy = _FAULTS[self._state]
        return Fault(what.format(line=f"{self._line:,}", opened=f"{self._opened:,}"), remedy)
