"""Compressed bodies: what they hold comes out whole, or they are refused, and none is unpacked beyond the limit."""

import gzip
import random
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.compression import unpack

MAX = 100_000
PACKERS = {"gzip": gzip.compress, "zstd": zstandard.compress}
BODY = b'{"events": [' + b", ".join(b'{"name": "n%d"}' % n for n in range(50)) + b"]}"


def refused(body: bytes, encoding: str, bytes_max: int = MAX) -> Reason:
    with pytest.raises(NimbusError) as caught:
        unpack(body, encoding, bytes_max)
    return caught.value.reason


@pytest.mark.parametrize("encoding", PACKERS)
@given(st.binary(max_size=500), st.binary(max_size=500))
def test_a_body_comes_out_as_it_went_in_of_one_piece_or_several(encoding: str, one: bytes, other: bytes) -> None:
    pack = PACKERS[encoding]
    assert unpack(pack(one), encoding, MAX) == one
    assert unpack(pack(one) + pack(other), encoding, MAX) == one + other


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP ", "Gzip"])
def test_the_name_of_an_encoding_may_be_written_in_any_case(encoding: str) -> None:
    assert unpack(gzip.compress(BODY), encoding, MAX) == BODY


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_a_body_that_is_not_packed_stays_as_it_is(encoding: str) -> None:
    assert unpack(gzip.compress(BODY), encoding, MAX) == gzip.compress(BODY)


@pytest.mark.parametrize("encoding", ["br", "deflate", "compress", "gzip, gzip", "zstd,gzip", "*", "none", "\u00e9"])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    assert refused(BODY, encoding) is Reason.REQUEST_UNPARSABLE


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_body_that_is_cut_off_anywhere_is_refused(encoding: str) -> None:
    packed = PACKERS[encoding](BODY)
    for length in range(1, len(packed)):
        assert refused(packed[:length], encoding) is Reason.REQUEST_UNPARSABLE, length


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_body_that_is_cut_off_in_its_second_piece_is_refused(encoding: str) -> None:
    packed = PACKERS[encoding](BODY)
    assert refused(packed + packed[:-3], encoding) is Reason.REQUEST_UNPARSABLE


@pytest.mark.parametrize("encoding", PACKERS)
@given(st.binary(min_size=1, max_size=200))
def test_what_is_no_compressed_body_is_refused(encoding: str, body: bytes) -> None:
    assert refused(b"x" + body, encoding) is Reason.REQUEST_UNPARSABLE


def test_a_gzip_body_with_a_flipped_bit_is_refused() -> None:
    packed = bytearray(gzip.compress(random.Random(1).randbytes(2_000)))
    packed[1_000] ^= 1
    assert refused(bytes(packed), "gzip") is Reason.REQUEST_UNPARSABLE


@pytest.mark.parametrize("encoding", PACKERS)
def test_the_limit_is_on_what_comes_out(encoding: str) -> None:
    pack = PACKERS[encoding]
    assert len(unpack(pack(bytes(MAX)), encoding, MAX)) == MAX
    assert refused(pack(bytes(MAX + 1)), encoding) is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_bomb_is_not_unpacked_beyond_the_limit(encoding: str) -> None:
    bomb = PACKERS[encoding](bytes(200 * 1024 * 1024))
    tracemalloc.start()
    assert refused(bomb, encoding) is Reason.BODY_TOO_LARGE
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 1024 * 1024


def test_a_zstd_window_that_would_fill_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = stream.compress(bytes(2**20)) + stream.flush()
    assert refused(packed, "zstd", 2**25) is Reason.REQUEST_UNPARSABLE


def test_deflate_in_a_gzip_wrapper_alone_is_gzip() -> None:
    assert refused(zlib.compress(BODY), "gzip") is Reason.REQUEST_UNPARSABLE
