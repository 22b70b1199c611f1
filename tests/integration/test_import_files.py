"""Files of every form give their records back, good and bad, with their line numbers."""

import csv
import gzip
import io
import os
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nimbus_server.clock import moment, now
from nimbus_server.errors import StartupError
from nimbus_server.importer import source as source_module
from nimbus_server.importer.decode import Rejected
from nimbus_server.importer.files import find_source
from nimbus_server.importer.lines import LINE_BYTES_MAX
from nimbus_server.importer.source import Block, FileDamagedError, Format, blocks_of
from nimbus_server.ingest.copy_rows import NULL
from nimbus_server.ingest.event import NewEvent

TS = "2025-11-01T12:00:00Z"
GOOD = b'{"name": "n", "ts": "2025-11-01T12:00:00Z"}'


def blocks(path: Path, content: bytes, form: Format | None = None) -> list[Block]:
    path.write_bytes(content)
    return list(blocks_of(find_source(path, form), now, None))


def events(path: Path, content: bytes) -> list[NewEvent]:
    read = blocks(path, content)
    assert [r for block in read for r in block.rejected] == []
    return [event for block in read for event in block.events]


def rejected(path: Path, content: bytes) -> list[Rejected]:
    return [r for block in blocks(path, content) for r in block.rejected]


def columns(event: NewEvent) -> list[bytes | None]:
    """name, user_id, idempotency_key, anonymous_id, context and props, out of the texts for COPY."""
    found: list[bytes | None] = []
    texts = event.texts
    while texts:
        length, texts = texts[:4], texts[4:]
        if length == NULL:
            found.append(None)
        else:
            size = int.from_bytes(length)
            found.append(texts[:size])
            texts = texts[size:]
    return found


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=8)
PROPS = st.dictionaries(
    TEXT, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT | st.lists(TEXT), max_size=3
)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2025, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
EVENTS = st.lists(
    st.fixed_dictionaries(
        {"name": TEXT, "ts": TIMES},
        optional={
            "user_id": TEXT,
            "idempotency_key": TEXT,
            "id": TEXT,
            "props": PROPS,
            "anonymous_id": TEXT,
            "context": PROPS,
        },
    ),
    max_size=12,
)


def as_json_lines(wanted: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in wanted)


def as_csv(wanted: list[dict[str, Any]], line_end: str = "\r\n") -> bytes:
    text = io.StringIO(newline="")
    fields = ["ts", "props", "id", "name", "context", "user_id", "anonymous_id", "idempotency_key"]
    # The writer leaves a lone \r bare where lines end otherwise.
    quoting = csv.QUOTE_MINIMAL if line_end == "\r\n" else csv.QUOTE_ALL
    writer = csv.DictWriter(text, fields, lineterminator=line_end, quoting=quoting)
    writer.writeheader()
    for event in wanted:
        cells = {"ts": event["ts"].isoformat()}
        cells |= {name: orjson.dumps(event[name]).decode() for name in ("props", "context") if name in event}
        writer.writerow(event | cells)
    return text.getvalue().encode()


@given(EVENTS, st.sampled_from(["jsonl", "csv", "csv\n"]), st.booleans(), st.booleans(), st.integers(1, 5))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_events_come_back_as_they_were_written(
    tmp_path: Path, wanted: list[dict[str, Any]], form: str, zipped: bool, bom: bool, block: int
) -> None:
    written = as_json_lines(wanted) if form == "jsonl" else as_csv(wanted, "\n" if form == "csv\n" else "\r\n")
    written = b"\xef\xbb\xbf" + written if bom else written
    path = tmp_path / f"history.{form.strip()}{'.gz' if zipped else ''}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "BLOCK_RECORDS", block)
        patch.setattr(source_module, "SOME_RECORDS", block)
        read = events(path, gzip.compress(written, 1) if zipped else written)
    assert [moment(event.ts) for event in read] == [event["ts"] for event in wanted]
    for event, expected in zip(read, wanted, strict=True):
        name, user_id, key, anonymous_id, context, props = columns(event)
        assert name == expected["name"].encode()
        assert user_id == (expected["user_id"].encode() if "user_id" in expected else None)
        assert key == (expected["idempotency_key"].encode() if "idempotency_key" in expected else None)
        assert anonymous_id == (expected["anonymous_id"].encode() if "anonymous_id" in expected else None)
        assert orjson.loads((context or b"")[1:]) == expected.get("context", {})
        assert orjson.loads((props or b"")[1:]) == expected.get("props", {})
    assert events(path, gzip.compress(written) if zipped else written) == [
        e._replace(place=n) for n, e in enumerate(read)
    ]


def test_a_zipped_file_is_the_file(tmp_path: Path) -> None:
    content = GOOD * 1 + b"\n" + GOOD
    plain = events(tmp_path / "a.jsonl", content)
    assert events(tmp_path / "a.jsonl.gz", gzip.compress(content)) == plain
    assert events(tmp_path / "a.jsonl", gzip.compress(content + b"\n")) == plain
    assert len({event.id for event in plain}) == 2


def test_bad_lines_are_refused_one_by_one(tmp_path: Path) -> None:
    wrong_field = [b'{"name": "\\ud800"}', b'{"name": "\xff"}', b'{"name": NaN}', b'{"name": "a", "name": "b"}']
    bad = [b"{", b"[]", b"5", b'"x"', *wrong_field, b"{} {}", b"\0"]
    found = rejected(tmp_path / "a.jsonl", GOOD + b"\n\n" + b"\n".join(bad) + b"\n  \r\n" + GOOD)
    assert [(r.line, r.raw) for r in found] == list(enumerate(bad, start=3))
    assert {r.reason for r in found if r.raw not in wrong_field} == {"REQUEST_UNPARSABLE"}
    assert {r.reason for r in found if r.raw in wrong_field} == {"FIELD_INVALID", "FIELD_REQUIRED"}


@pytest.mark.parametrize("bad", [b"[]", b"5", b"null", GOOD + b" " * LINE_BYTES_MAX, b"{} {}"])
def test_a_bad_line_among_good_ones_is_no_record(tmp_path: Path, bad: bytes) -> None:
    (found,) = rejected(tmp_path / "a.jsonl", b"\n".join([GOOD, GOOD, bad, GOOD]))
    assert (found.line, found.reason) == (3, "REQUEST_UNPARSABLE")


def test_a_block_knows_its_last_line_however_far_the_file_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "BLOCK_RECORDS", source_module.SOME_RECORDS)
    content = b"\n" * 3 + (GOOD + b"\n") * (2 * source_module.SOME_RECORDS + 1)
    assert [block.last_line for block in blocks(tmp_path / "a.jsonl", content)] == [53, 103, 104]


def test_a_block_of_what_comes_slowly_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "BLOCK_SECONDS", 0.0)
    read = blocks(tmp_path / "a.jsonl", (GOOD + b"\n") * (2 * source_module.SOME_RECORDS + 1))
    assert [block.records for block in read] == [50, 50, 1]
    assert len({event.id for block in read for event in block.events}) == 101


def test_a_line_that_is_too_long_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    padding = b" " * (LINE_BYTES_MAX - len(GOOD) - 1)
    (block,) = blocks(tmp_path / "a.jsonl", padding + GOOD + b"\n" + padding * 5 + GOOD + b"\n" + GOOD)
    assert [(r.line, len(r.raw)) for r in block.rejected] == [(2, LINE_BYTES_MAX + 1)]
    assert (len(block.events), block.last_line) == (2, 3)


def test_the_largest_event_fits_into_a_line_however_it_is_written(tmp_path: Path) -> None:
    largest = '{"x":"' + "\\u0078" * (32_768 - 8) + '"}'
    line = f'{{"name": "n", "ts": "{TS}", "props": {largest}, "context": {largest}}}'
    assert len(line) > 390_000
    cell = '"' + largest.replace('"', '""') + '"'
    row = f"name,ts,props,context\nn,{TS},{cell},{cell}"
    for name, content in (("a.jsonl", line), ("a.csv", row)):
        (event,) = events(tmp_path / name, content.encode())
        assert [len(columns(event)[at] or b"") for at in (-2, -1)] == [32_769, 32_769]


def test_columns_without_a_meaning_are_properties(tmp_path: Path) -> None:
    content = b'ts,plan, name ,props,"a,b"\n' + TS.encode() + b',pro,n,"{""x"": 1}",\n' + TS.encode() + b",,n,,2\n"
    read = events(tmp_path / "a.csv", content)
    assert [orjson.loads((columns(event)[-1] or b"")[1:]) for event in read] == [{"x": 1, "plan": "pro"}, {"a,b": "2"}]


def test_a_cell_may_have_line_ends_and_its_row_the_number_of_its_first_line(tmp_path: Path) -> None:
    content = f'name,ts,note\r\nn,{TS},"one\ntwo\r\n""three"""\r\n\r\nx,,"no\ntime"\r\nm,{TS},\r\n'.encode()
    (block,) = blocks(tmp_path / "a.csv", content)
    assert orjson.loads((columns(block.events[0])[-1] or b"")[1:]) == {"note": 'one\ntwo\r\n"three"'}
    assert [(r.line, r.raw, r.field) for r in block.rejected] == [(6, b'x,,"no\ntime"', "ts")]
    assert [event.name for event in block.events] == ["n", "m"]


def test_columns_of_context_are_places_in_it(tmp_path: Path) -> None:
    header = "name,ts,anonymous_id,context.page.path,context.page.title,context,context.locale,page"
    rows = [
        f'a,{TS},device-1,/home,Home,"{{""app"": {{""build"": 7}}}}",de,p',
        f"b,{TS},,,,,,",
        f'c,{TS},,,,"{{""page"": 1}}",,',
    ]
    read = events(tmp_path / "a.csv", "\n".join([header, *rows]).encode())
    found = [(columns(event)[3], orjson.loads((columns(event)[4] or b"")[1:])) for event in read]
    assert found == [
        (b"device-1", {"page": {"path": "/home", "title": "Home"}, "app": {"build": 7}, "locale": "de"}),
        (None, {}),
        (None, {"page": 1}),
    ]
    assert [orjson.loads((columns(event)[-1] or b"")[1:]) for event in read] == [{"page": "p"}, {}, {}]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (f"n,{TS},[],,", "context", "FIELD_INVALID"),
        (f'n,{TS},"{{""x"": {{}}}}",,1', "context", "FIELD_INVALID"),
        (f'n,{TS},"{{""x"": 1, ""x"": 1}}",,', "context", "FIELD_INVALID"),
        (f"n,{TS},,,\0", "context", "FIELD_INVALID"),
        (f"n,{TS},,{'a' * 201},", "anonymous_id", "FIELD_TOO_LONG"),
        (f"n,{TS},,," + "x" * 33_000, "context", "FIELD_TOO_LONG"),
    ],
)
def test_rows_with_a_bad_context_are_refused_one_by_one(tmp_path: Path, row: str, field: str, reason: str) -> None:
    content = f"name,ts,context,anonymous_id,context.x.y\nn,{TS},,,\n{row}\nn,{TS},,,\n".encode()
    (block,) = blocks(tmp_path / "a.csv", content)
    assert [(r.line, r.field, r.reason) for r in block.rejected] == [(3, field, reason)]
    assert len(block.events) == 2


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ("n", "", "REQUEST_UNPARSABLE"),
        (f"n,{TS},,,", "", "REQUEST_UNPARSABLE"),
        (f"n,{TS},[],", "props", "FIELD_INVALID"),
        (f"n,{TS},{{,", "props", "FIELD_INVALID"),
        (f'n,{TS},"{{""x"": 1}}",2', "props", "FIELD_INVALID"),
        (f"n,,,{TS}", "ts", "FIELD_REQUIRED"),
        (f",{TS},,", "name", "FIELD_REQUIRED"),
        (f"\udcff,{TS},,", "name", "FIELD_INVALID"),
        (f"n,{TS},,\udcff", "props", "FIELD_INVALID"),
        (f"n,{TS},,\0", "props", "FIELD_INVALID"),
        (f"n,{TS},," + "x" * 530_000, "", "REQUEST_UNPARSABLE"),
    ],
)
def test_bad_rows_are_refused_one_by_one(tmp_path: Path, row: str, field: str, reason: str) -> None:
    content = f"name,ts,props,x\nn,{TS},,\n{row}\nn,{TS},,\n".encode(errors="surrogateescape")
    (block,) = blocks(tmp_path / "a.csv", content)
    assert [(r.line, r.field, r.reason) for r in block.rejected] == [(3, field, reason)]
    assert len(block.events) == 2


def test_a_quote_that_is_never_closed_hides_nothing(tmp_path: Path) -> None:
    content = f'name,ts,x\nn,{TS},"\nn,{TS},\nn,{TS},'.encode()
    (block,) = blocks(tmp_path / "a.csv", content)
    assert [(r.line, r.raw) for r in block.rejected] == [(2, content.partition(b"\n")[2])]
    assert block.events == []


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("name,x", "ts"),
        ("ts", "name"),
        ("name,ts,name", "twice"),
        ("name,ts,", "column 3"),
        ("name,ts,props,properties", "props"),
        ("name,ts,context.a,context.a.b", "context.a.b lies within the column context.a"),
        ("name,ts,context.", "empty key"),
        ("name,ts,context.a..b", "empty key"),
    ],
)
def test_a_wrong_header_is_told_before_anything_is_read(tmp_path: Path, header: str, says: str) -> None:
    with pytest.raises(StartupError, match=says):
        blocks(tmp_path / "a.csv", header.encode() + b"\n")


def test_a_suffix_tells_the_form_unless_it_is_given(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.NDJSON", "a.json", "a.json.gz"):
        assert len(events(tmp_path / name, GOOD)) == 1
    (tmp_path / "a.txt").touch()
    with pytest.raises(StartupError, match="--format"):
        find_source(tmp_path / "a.txt", None)
    assert len(blocks(tmp_path / "a.csv", GOOD, Format.JSONL)[0].events) == 1


@pytest.mark.parametrize("content", [b"", b"\n", b"name,ts\n"])
def test_an_empty_file_has_nothing(tmp_path: Path, content: bytes) -> None:
    assert blocks(tmp_path / "a.csv", content if content != b"\n" else b"") == []
    assert blocks(tmp_path / "a.jsonl.gz", gzip.compress(b"\n")) == []


def test_what_comes_before_damage_is_read(tmp_path: Path) -> None:
    lines = b"".join(GOOD[:-1] + b', "id": %d}\n' % number for number in range(20_000))
    path = tmp_path / "a.jsonl.gz"
    cut = gzip.compress(lines)[:-100]
    path.write_bytes(cut)
    whole_lines = zlib.decompressobj(wbits=31).decompress(cut).count(b"\n")
    found: list[int] = []
    with pytest.raises(FileDamagedError, match=r"a\.jsonl\.gz"):
        found.extend(len(block.events) for block in blocks_of(find_source(path, None), now, None))
    assert 0 < sum(found) == whole_lines < 20_000


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file"):
        find_source(tmp_path / "a.csv", None)


def test_a_file_that_grows_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\n")
    found = find_source(path, None)
    path.write_bytes((GOOD + b"\n") * 2)
    assert sum(len(block.events) for block in blocks_of(found, now, None)) == 2


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_that_has_become_shorter_was_not_read(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.jsonl"
    lines = [GOOD + b"\n", (GOOD + b"\n") * 2]
    shorter, longer = map(gzip.compress, lines) if zipped else lines
    path.write_bytes(longer)
    found = find_source(path, None)
    assert [len(block.events) for block in blocks_of(found, now, None)] == [2]
    path.write_bytes(shorter)
    with pytest.raises(
        FileDamagedError, match=r"a\.jsonl has become shorter while it was read, and ends after line 1\."
    ):
        list(blocks_of(found, now, None))
    path.unlink()
    with pytest.raises(FileDamagedError, match=r"a\.jsonl can't be read: No such file or directory\."):
        list(blocks_of(found, now, None))


def test_a_name_that_is_not_utf_8_makes_identities_too(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"\xe9.jsonl", b"\xe8.jsonl", "é.jsonl".encode())]
    assert len({events(tmp_path / name, GOOD)[0].id for name in names}) == 3
    path = tmp_path / os.fsdecode(b"\xe9\n.jsonl")
    with pytest.raises(StartupError, match=r"/\\xe9\\n\.jsonl can't be read"):
        find_source(path, None)


def test_a_line_of_json_that_is_cut_says_so(tmp_path: Path) -> None:
    long, short = rejected(tmp_path / "a.jsonl", b"[" * (LINE_BYTES_MAX + 1) + b"\n[")
    assert [(r.lines, r.whole) for r in (long, short)] == [(1, False), (1, True)]
