"""JSON Lines (https://jsonlines.org): a JSON object a line."""

from collections.abc import Iterator

import orjson

from nimbus_server.importer.lines import LINE_BYTES_MAX, Lines
from nimbus_server.importer.record import Record, new_record, unparsable


def read_json_lines(lines: Lines) -> Iterator[Record]:
    """Each line that is not blank."""
    for line in lines:
        raw = line.rstrip(b"\r\n")
        if len(line) > LINE_BYTES_MAX:
            yield Record(lines.number, raw, unparsable(f"The line has more than {LINE_BYTES_MAX} bytes."))
            continue
        try:
            content = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            if not raw.isspace() and raw:
                yield Record(lines.number, raw, unparsable(f"The line is not valid JSON: {error.msg}."))
            continue
        if type(content) is not dict:
            content = unparsable("The line must be a JSON object: one event, not a list of them.")
        yield new_record((lines.number, raw, content))
