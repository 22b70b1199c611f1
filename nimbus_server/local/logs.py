"""The log files of the children: private, appended to, and bounded."""

import os
import shutil
from pathlib import Path

LOG_BYTES_MAX = 20 * 1024 * 1024
_TAIL_BYTES = 16 * 1024


def open_log(path: Path) -> int:
    """A descriptor that appends to the log, made for the owner alone. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def size(path: Path) -> int:
    """Bytes in the log; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def rotate(path: Path) -> None:
    """Move what is in a log that has grown past LOG_BYTES_MAX to `<name>.1`. Raises OSError.

    The file is emptied in place: its writers hold it open for appending and go on at its new end.
    """
    if size(path) > LOG_BYTES_MAX:
        old = path.with_name(path.name + ".1")
        old.unlink(missing_ok=True)
        os.close(os.open(old, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        shutil.copyfile(path, old)
        os.truncate(path, 0)


def last_words(path: Path, since: int) -> str:
    """Why a process ended, as its log tells after byte `since`: the last fatal line, else the last; "" without one."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(min(since, end), end - _TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    fatal = [line for line in lines if any(word in line for word in ("FATAL", "PANIC"))]
    return (fatal or lines or [""])[-1][:500]
