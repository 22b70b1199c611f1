"""The two TCP ports, held from before the first process starts until the last has ended."""

import errno
import socket
from dataclasses import dataclass

from nimbus_server.errors import StartupError


@dataclass(frozen=True, slots=True)
class Reservation:
    """A port that the processes of this Nimbus can listen on, and no other program can."""

    # As a number: Envoy takes no names.
    address: str
    port: int
    holder: socket.socket

    def release(self) -> None:
        """Give the port back."""
        self.holder.close()


def reserve(address: str, port: int, option: str) -> Reservation:
    """Hold `port` of `address`; 0 takes any free one. `option` is how a person chooses another.

    Workers share the gRPC port by SO_REUSEPORT and Envoy's threads the HTTP port, so a second Nimbus could join in
    unnoticed. The holder never listens, and so gets no connections, but shuts everyone out who isn't this user and asks
    for SO_REUSEPORT: while it is bound without it, another one can't be bound at all.
    Raises StartupError where the port is taken, not allowed, or the address isn't one of this machine.
    """
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartupError(
            f"The address {address} can't be resolved ({error.strerror}). Choose another with --bind-address."
        ) from None
    family, kind, protocol, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    holder = socket.socket(family, kind, protocol)
    try:
        # With SO_REUSEADDR, connections that linger from the last run are no obstacle, only a listener is.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(place)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        holder.close()
        raise _refused(error, address, port, option) from None
    numeric, taken, *_ = holder.getsockname()
    return Reservation(numeric, taken, holder)


def _refused(error: OSError, address: str, port: int, option: str) -> StartupError:
    match error.errno:
        case errno.EADDRINUSE:
            return StartupError(f"Port {port} is taken by another program. Stop it, or choose another with {option}.")
        case errno.EACCES:
            return StartupError(f"Port {port} is reserved for root. Choose one of 1024 or more with {option}.")
        case errno.EADDRNOTAVAIL:
            return StartupError(f"{address} is no address of this machine. Choose another with --bind-address.")
        case _:
            return StartupError(
                f"Port {port} of {address} can't be used ({error.strerror}). Choose another with {option}."
            )


def host_to_reach(address: str) -> str:
    """The host, as it stands in a URL, by which this machine reaches what listens on `address`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104  # compared, not bound
    return f"[{host}]" if ":" in host else host
