"""JSON Lines (https://jsonlines.org): a JSON object a line."""

from collections.abc import Iterator, Sequence
from itertools import count, islice

import orjson

from nimbus_server import strict_json
from nimbus_server.importer.lines import LINE_BYTES_MAX, Lines
from nimbus_server.importer.record import Record, new_record, unparsable
from nimbus_server.ingest.decode import TOGETHER

LINE_ENDS = b"\r\n"


def read_json_lines(lines: Lines) -> Iterator[Record]:
    """Each line that is not blank. TOGETHER are parsed at once, and where one of them is bad one by one."""
    upcoming = iter(lines)
    while some := list(islice(upcoming, TOGETHER)):
        first = lines.number - len(some) + 1
        yield from _objects(first, some) or _one_by_one(first, some)


def _objects(first: int, lines: Sequence[bytes]) -> list[Record] | None:
    """The lines as records, or None where one of them is none."""
    if max(map(len, lines)) > LINE_BYTES_MAX:
        return None
    try:
        contents = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    if set(map(type, contents)) != {dict}:
        return None
    raws = [line.rstrip(LINE_ENDS) for line in lines]
    if not strict_json.is_unchanged(contents, b"[%b]" % b",".join(raws)):
        return None
    return list(map(new_record, zip(count(first), raws, contents, strict=False)))


def _one_by_one(first: int, lines: Sequence[bytes]) -> Iterator[Record]:
    for number, line in enumerate(lines, first):
        raw = line.rstrip(LINE_ENDS)
        if len(line) > LINE_BYTES_MAX:
            yield Record(number, raw, unparsable(f"The line has more than {LINE_BYTES_MAX} bytes."))
            continue
        if not raw.strip():
            continue
        try:
            content = strict_json.loads(raw)
        except ValueError as error:
            yield Record(number, raw, unparsable(f"The line is not valid JSON: {error}."))
            continue
        if not isinstance(content, dict):
            content = unparsable("The line must be a JSON object: one event, not a list of them.")
        yield new_record((number, raw, content))
