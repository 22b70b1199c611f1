"""Bodies that come compressed, unpacked no further than a body may be large."""

import gzip
import zlib
from io import BytesIO

import zstandard

from nimbus_server.errors import NimbusError, Reason

# What every decoder must be able to take (RFC 8878, section 3.1.1.1.2); a larger one would be held in memory whole.
ZSTD_WINDOW_MAX = 8 * 1024 * 1024
# The reader of zstd takes the end of its input for the end of what was packed. So more is put there: a body that was
# cut off swallows it. Packed it is a few bytes, in which it does not stand as it is.
END = bytes(64)
ZSTD_END = zstandard.compress(END)


def unpack(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body behind a Content-Encoding: gzip, zstd, identity or none.

    Raises NimbusError with REQUEST_UNPARSABLE, or BODY_TOO_LARGE where it unpacks to more than `bytes_max`.
    """
    reader: gzip.GzipFile | zstandard.ZstdDecompressionReader
    end = b""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            reader = gzip.GzipFile(fileobj=BytesIO(body))
        case "zstd":
            reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX).stream_reader(
                body + ZSTD_END, read_across_frames=True
            )
            end = END
        case _:
            raise NimbusError(
                Reason.REQUEST_UNPARSABLE, "This Content-Encoding is not known here: use gzip, zstd, or none."
            )
    try:
        unpacked: bytes = reader.read(bytes_max + len(end) + 1)
    except (EOFError, OSError, zlib.error, zstandard.ZstdError):
        raise _not_as_said() from None
    if len(unpacked) > bytes_max + len(end):
        raise NimbusError(
            Reason.BODY_TOO_LARGE, f"The body unpacks to more than {bytes_max} bytes. Send fewer events at a time."
        )
    if not unpacked.endswith(end):
        raise _not_as_said()
    return unpacked.removesuffix(end)


def _not_as_said() -> NimbusError:
    return NimbusError(Reason.REQUEST_UNPARSABLE, "The body is not what its Content-Encoding says, or it is cut off.")
