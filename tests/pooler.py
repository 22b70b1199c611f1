"""A pooler between Nimbus and PostgreSQL that leaves startup parameters out, as pgbouncer can be told to."""

import socket
import socketserver
import struct
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROTOCOL = 3 << 16
ENCRYPTION_REQUESTS = {80877103, 80877104}


class Pooler(socketserver.ThreadingUnixStreamServer):
    """Listens at `<folder>/.s.PGSQL.5432`; every client has a session of its own in the PostgreSQL at `upstream`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path, upstream: Path, left_out: Collection[str]) -> None:
        super().__init__(str(folder / ".s.PGSQL.5432"), _Client)
        self.upstream = str(upstream)
        self.left_out = {name.lower() for name in left_out}
        self.turned_away = 0
        self._is_away = False
        self._open: set[socket.socket] = set()

    def go_away(self) -> None:
        """End all connections, and turn away those that come, as PostgreSQL does while it starts."""
        self._is_away = True
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Take connections again."""
        self._is_away = False

    def verify_request(self, _request: Any, _client_address: Any) -> bool:
        """See socketserver."""
        self.turned_away += self._is_away
        return not self._is_away

    def finish_request(self, request: Any, client_address: Any) -> None:
        """See socketserver."""
        self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self._open.discard(request)


class _Client(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Pooler)
        with socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(self.server.upstream)
            server.sendall(self._startup(self.server.left_out))
            threading.Thread(target=_pump, args=(server, self.request), daemon=True).start()
            _pump(self.request, server)

    def _startup(self, left_out: Collection[str]) -> bytes:
        """The client's first message, but for the parameters that are left out."""
        size, code = struct.unpack("!ii", self._read(8))
        body = self._read(size - 8)
        if code in ENCRYPTION_REQUESTS:
            self.request.sendall(b"N")
            return self._startup(left_out)
        if code == PROTOCOL:
            words = body.rstrip(b"\0").split(b"\0")
            pairs = zip(words[::2], words[1::2], strict=True)
            body = b"".join(b"%b\0%b\0" % pair for pair in pairs if pair[0].decode().lower() not in left_out) + b"\0"
        return struct.pack("!ii", len(body) + 8, code) + body

    def _read(self, size: int) -> bytes:
        return self.request.recv(size, socket.MSG_WAITALL)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(65536):
            sink.sendall(some)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def pooler(folder: Path, upstream: Path, *left_out: str) -> Iterator[Pooler]:
    """A pooler that runs in threads of this process."""
    with Pooler(folder, upstream, left_out) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
            Path(running.server_address).unlink()
