"""How gRPC is told of a Unix socket."""

import os
from pathlib import Path
from urllib.parse import quote


def socket_address(socket: Path) -> str:
    """The socket as an address to listen on, or to call."""
    # gRPC reads a URI: a percent sign in the path is not one of its own.
    return f"unix:{quote(os.fsencode(socket.absolute()))}"
