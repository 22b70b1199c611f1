"""Events are counted in the bytes of a request as the parser counts them, whatever else is in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.ingest.wire import has_more_events

EVENTS = st.lists(st.builds(pb.Event, name=st.text(max_size=200), props_json=st.binary(max_size=300)), max_size=4)
REQUESTS = st.builds(
    pb.IngestEventsRequest, project_id=st.text(max_size=40), events=EVENTS, return_receipts=st.booleans()
).map(lambda request: request.SerializeToString())
# A field 100 of each wire type, and an events' tag that takes more bytes than it needs.
OTHERS = st.sampled_from(
    [
        *(b"\xa0\x06\x80\x01", b"\xa1\x06" + bytes(8), b"\xa2\x06\x02\x12\x00"),
        *(b"\xa3\x06\xa4\x06", b"\xa5\x06" + bytes(4)),
        *(b"\x92\x00\x00", b"\x92\x80\x00\x02\x0a\x00"),
    ]
)


@given(st.lists(REQUESTS | OTHERS, max_size=6).map(b"".join))
def test_it_counts_what_the_parser_counts(raw: bytes) -> None:
    count = len(pb.IngestEventsRequest.FromString(raw).events)
    assert not has_more_events(raw, count)
    assert count == 0 or has_more_events(raw, count - 1)


@pytest.mark.parametrize(
    "raw", [b"\x12", b"\x12\xff", b"\xff" * 20, b"\x12" + b"\xff" * 10 + b"\x00", b"\x16", b"\x09"]
)
def test_what_is_no_message_is_left_to_the_parser(raw: bytes) -> None:
    assert not has_more_events(raw, 0)


@given(st.binary())
def test_anything_is_looked_at_without_an_error(raw: bytes) -> None:
    has_more_events(raw, 0)
