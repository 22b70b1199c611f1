"""Becomes another program that can't outlive its parent: `python -I -S tether.py PARENT SIGNAL UID GID COMMAND…`.

This stands in for `preexec_fn`, which may deadlock in a process with threads, and gRPC brings threads. It runs outside
of the package, with nothing but the standard library, in a hundredth of a second.
"""

# Before the change of user, who may not be let into the folder of the standard library.
import ctypes
import os
import sys
from collections.abc import Sequence
from signal import Signals

_PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str], orphan_signal: Signals, ids: tuple[int, int] | None) -> list[str]:
    """The command that runs `command` so that the kernel sends it `orphan_signal` when the calling process dies.

    With `ids`, a user and a group, it gives up root for them, further groups included.
    """
    become = map(str, ids) if ids else ("-", "-")
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(orphan_signal)), *become, *command]


def main(parent: str, orphan_signal: str, uid: str, gid: str, *command: str) -> None:
    """Change the user, tie this process to its parent, become `command`. Raises OSError."""
    if gid != "-":
        os.setgroups([])
        os.setgid(int(gid))
    if uid != "-":
        os.setuid(int(uid))
    # Only now: a change of user undoes it.
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(orphan_signal)) != 0:
        raise OSError("the kernel does not tie a process to its parent")
    if os.getppid() == int(parent):
        os.execv(command[0], command)  # noqa: S606  # to become the command is the point


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"{sys.argv[5]} can't be run: {error}")
