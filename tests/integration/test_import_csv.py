"""Every line of a CSV file is in one row, and no part of a cell is a row, whatever is wrong with the file."""

import csv
import io
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nimbus_server.clock import now
from nimbus_server.errors import StartupError
from nimbus_server.importer import csv_reader
from nimbus_server.importer import lines as lines_module
from nimbus_server.importer.csv_reader import ROW_BYTES_MAX, Rows
from nimbus_server.importer.decode import Rejected
from nimbus_server.importer.files import find_source
from nimbus_server.importer.lines import BUFFER_BYTES, Lines
from nimbus_server.importer.record import UnreadableError
from nimbus_server.importer.source import blocks_of

TS = "2025-11-01T12:00:00Z"
HEADER = "name,ts,note\n"
GOOD = f"good,{TS},\n"
EVIL = f"evil,{TS},"


@dataclass
class Read:
    """The rows of a file: cells by first line, and how many lines are refused by the first of them."""

    rows: dict[int, list[str]] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)


def lines_of(content: bytes) -> list[bytes]:
    *whole, last = content.split(b"\n")
    return [line + b"\n" for line in whole] + ([last] if last else [])


def read(path: Path, content: bytes) -> Read:
    """The rows, after a check that each line which is not blank is in one of them."""
    path.write_bytes(content)
    content = content.removeprefix(b"\xef\xbb\xbf")
    found, places = Read(), []
    with Lines(path) as lines:
        for line, raw, cells in Rows(lines):
            if isinstance(cells, UnreadableError):
                found.refused[line] = cells.lines
                places += range(line, line + cells.lines)
                assert len(raw) <= csv_reader.ROW_BYTES_MAX
            else:
                found.rows[line] = cells
                places += range(line, line + raw.count(b"\n") + 1)
                assert b"".join(lines_of(content)[line - 1 :]).startswith(raw)
    assert len(set(places)) == len(places)
    assert all(not line.strip(b"\r\n") for n, line in enumerate(lines_of(content), 1) if n not in places)
    return found


def modelled(content: bytes, row_bytes_max: int) -> Read:
    """What should be read: a character at a time, with the whole file in memory."""
    found, lines, at = Read(), lines_of(content), 0
    while at < len(lines):
        cells, taken, fault = first_row(lines[at:])
        text = b"".join(lines[at : at + taken])
        if fault and (b'"' in text or len(text) > row_bytes_max):
            found.refused[at + 1] = len(lines) - at
            break
        if fault or len(text) > row_bytes_max:
            found.refused[at + 1] = taken
        elif text.strip(b"\r\n"):
            found.rows[at + 1] = cells
        at += taken
    return found


def first_row(lines: list[bytes]) -> tuple[list[str], int, bool]:  # noqa: C901 - case by case, to be plain
    """The cells of the first row, how many lines it takes, and whether something is wrong with it."""
    cells, cell, quoted, closed = [], "", False, False
    for taken, line in enumerate(lines, 1):
        text = line.decode(errors="surrogateescape")
        for at, character in enumerate(text):
            if quoted and character == '"':
                quoted, closed = False, True
            elif quoted:
                cell += character
            elif closed and character == '"':
                cell, quoted, closed = cell + '"', True, False
            elif character == ",":
                cells.append(cell)
                cell, closed = "", False
            elif not text[at:].strip("\r\n"):
                return [*cells, cell], taken, False
            elif character == "\r" or closed:
                return [], taken, True
            elif character == '"' and not cell:
                quoted = True
            elif character == '"' and not cell.strip(" \t"):
                return [], taken, True
            else:
                cell += character
    return [*cells, cell], len(lines), quoted


@given(st.text('"",,\n\n\r \ta\0é', max_size=60).map(str.encode) | st.binary(max_size=20), st.integers(6, 70))
@example(b'"\n,"a\n', 70)
@example(b'a,"b"\r"c\nd\n', 70)
@example(b'"""\r\n""', 6)
@example(b"aaaaaa\ra\nb\n", 6)
@example(b'"a\na\na\na"\nb\n', 6)
@settings(deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_rows_are_those_that_a_plain_model_finds(tmp_path: Path, content: bytes, limit: int) -> None:
    content = content.removeprefix(b"\x1f\x8b").removeprefix(b"\xef\xbb\xbf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "ROW_BYTES_MAX", limit)
        patch.setattr(lines_module, "LINE_BYTES_MAX", limit)
        assert read(tmp_path / "a.csv", content) == modelled(content, limit)


CELLS = st.text('"",,\n\r \ta\0é🙂', max_size=8)


@given(
    st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.booleans(),
)
@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_well_formed_rows_are_those_that_python_reads(
    tmp_path: Path, rows: list[list[str]], line_end: str, quoting: int, bom: bool
) -> None:
    text = io.StringIO(newline="")
    # The writer leaves a lone \r, and a quote after blanks, bare where it need not quote.
    bare = any(cell.lstrip(" \t").startswith('"') or "\r" in cell for row in rows for cell in row)
    csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL if bare else quoting).writerows(rows)
    found = read(tmp_path / "a.csv", b"\xef\xbb\xbf" * bom + text.getvalue().encode())
    assert found.refused == {}
    python = csv.reader(line.decode() for line in lines_of(text.getvalue().encode()))
    assert list(found.rows.values()) == list(python) == rows


def imported(path: Path, content: str) -> tuple[list[str], list[Rejected]]:
    """The names of the events that are found, and what is refused."""
    path.write_bytes(content.encode())
    blocks = list(blocks_of(find_source(path, None), now, None))
    return [event.name for block in blocks for event in block.events], [r for block in blocks for r in block.rejected]


LARGE = f"{EVIL}\n" * (ROW_BYTES_MAX // len(EVIL) + 1)


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (f'open,{TS},"\n{EVIL}\n', "The quote that opens a cell on line 3 is never closed"),
        (f'open,{TS},"\n{EVIL}"x\n', "Line 4 has text after the quote that closes the cell opened on line 3"),
        (f'inch,{TS},"5" pipe\n{EVIL}\n"\n', "Line 3 has text after the quote"),
        (f'said,{TS},"he said "hi"\n{EVIL}\n"\n', "Line 3 has text after the quote"),
        (f'json,{TS},"{{"a": "b",\n{EVIL}\n}}"\n', "Line 3 has text after the quote"),
        (f'spaced,{TS},"a" ,\n', "Line 3 has text after the quote"),
        (f'blank,{TS}, "\n{EVIL}\n"\n', "Line 3 has a blank before the quote that opens a cell"),
        (f'blank,{TS},\t "\n{EVIL}\n"\n', "Line 3 has a blank before the quote"),
        (f'mac,{TS},x\rmac,{TS},"\n{EVIL}\n"\n', "Line 3 has a carriage return within a row"),
        (f'mac,{TS},"x"\rm\n', "Line 3 has a carriage return within a row"),
        (f'large,{TS},"\n{LARGE}\n', "The quote that opens a cell on line 3 is never closed"),
        (f'large,{TS},"\n{LARGE}\n"x\n', "has text after the quote that closes the cell opened on line 3"),
    ],
)
def test_where_cells_can_not_be_told_apart_all_that_follows_is_refused_and_counted(
    tmp_path: Path, damaged: str, says: str
) -> None:
    content = HEADER + GOOD + damaged + GOOD * 3
    names, (refused,) = imported(tmp_path / "a.csv", content)
    assert names == ["good"]
    last = content.count("\n")
    assert (refused.line, refused.lines, refused.to_end) == (3, last - 2, True)
    assert says in refused.message
    assert f"lines 3 to {last:,} are refused" in refused.message
    assert refused.message.endswith("run the same command again.")
    text = content[len(HEADER + GOOD) :].strip().encode()
    assert text.startswith(refused.raw)
    assert refused.whole == (text == refused.raw)


@pytest.mark.parametrize(
    ("row", "lines", "says"),
    [
        (f'large,{TS},"\n{LARGE}"\n', LARGE.count("\n") + 2, "more than 524,288 bytes"),
        (f'large,{TS},"\n{LARGE}","x\n{EVIL}\n"\n', LARGE.count("\n") + 4, "more than 524,288 bytes"),
        (f'large,{TS},"{"x" * ROW_BYTES_MAX}\n{EVIL}"\n', 2, "more than 524,288 bytes"),
        (f'large,{TS},"{"x" * (3 * ROW_BYTES_MAX)}""\n{EVIL}\n"""\n', 3, "more than 524,288 bytes"),
        (f"large,{TS},{'x' * (2 * ROW_BYTES_MAX)}\n", 1, "more than 524,288 bytes"),
        (f'large,{TS},5" {"x" * (2 * ROW_BYTES_MAX)}\n', 1, "more than 524,288 bytes"),
        (f'large,{TS},"x"{",y" * ROW_BYTES_MAX}\n', 1, "more than 524,288 bytes"),
        (f"mac,{TS},x\rmac,{TS},x\n", 1, "carriage return within a row"),
        (f'few,"\n{EVIL}"\n', 2, "The row has 2 cells, the header 3."),
    ],
)
def test_a_row_that_is_too_large_costs_itself_and_no_more(tmp_path: Path, row: str, lines: int, says: str) -> None:
    names, (refused,) = imported(tmp_path / "a.csv", HEADER + GOOD + row + GOOD + GOOD.strip())
    assert names == ["good"] * 3
    assert (refused.line, refused.lines, refused.to_end) == (3, lines, False)
    assert says in refused.message
    assert refused.whole == (len(row) <= ROW_BYTES_MAX)
    assert refused.raw == row[:ROW_BYTES_MAX].rstrip("\r\n").encode()


def test_a_quote_in_a_cell_that_does_not_begin_with_one_is_text(tmp_path: Path) -> None:
    row = f'5" pipe,{TS}," ""x"""\n'
    assert imported(tmp_path / "a.csv", HEADER + row + GOOD) == (['5" pipe', "good"], [])


@pytest.mark.parametrize("piece", [BUFFER_BYTES - 1, BUFFER_BYTES, ROW_BYTES_MAX, ROW_BYTES_MAX + 1])
def test_quotes_at_the_seams_of_pieces_are_seen(tmp_path: Path, piece: int) -> None:
    for shift in range(-3, 4):
        begin = f'large,{TS},"'
        cell = "x" * (piece - len(begin) + shift) + '"",""' + "x" * ROW_BYTES_MAX + f"\n{EVIL}\n"
        names, (refused,) = imported(tmp_path / "a.csv", f'{HEADER}{begin}{cell}"\n{GOOD}')
        assert (names, refused.line, refused.lines) == (["good"], 2, 3)


@pytest.mark.parametrize("cell", [f"{EVIL}{'x' * 200}\n", "x" * 1000, '""', "x,"])
def test_a_cell_of_any_size_takes_little_memory(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write(f'{HEADER}large,{TS},"')
        for _ in range(40):
            file.write(cell * (200_000 // len(cell)))
    tracemalloc.start()
    try:
        (block,) = blocks_of(find_source(path, None), now, None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [r.to_end for r in block.rejected] == [True]
    assert peak < 4 * 1024**2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f'name,ts,"note\n{GOOD}', "the quote that opens a cell on line 1 is never closed"),
        (f'name,ts,"note\n{GOOD * 10_000}', "the quote that opens a cell on line 1 is never closed"),
        (f'name,ts,"note"x\n{GOOD}', "line 1 has text after the quote"),
        (f'\n\nname,"ts" ,note\n{GOOD}', "line 3 has text after the quote"),
        (f"name,ts,note\r{GOOD}", "line 1 has a carriage return within a row"),
        (f"name,ts{',' * ROW_BYTES_MAX}\n{GOOD}", "it has more than 524,288 bytes"),
        (f'name,ts,"a\nb","a\nb"\n{GOOD}', r"the column a\\nb comes twice"),
        (f"\ufeffname,ts,{'x' * (ROW_BYTES_MAX - 11)}yz\n{GOOD}", "it has more than 524,288 bytes"),
    ],
)
def test_a_header_that_can_not_be_read_says_why(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(StartupError, match=says):
        imported(tmp_path / "a.csv", content)
