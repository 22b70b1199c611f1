"""Folders for what does not fit into memory: one for each process, of those that share the folder of the segments."""

import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import IO

LOCK = "lock"


class Spill:
    """A folder of this process within `folder`, until `close`. What ended processes have left there is deleted.

    Raises OSError where it can't be made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One at a time: a folder whose process is about to lock it is none that was left.
        with (folder / LOCK).open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            for left in folder.iterdir():
                if left.is_dir() and not _is_held(left):
                    shutil.rmtree(left, ignore_errors=True)
            self.path = Path(tempfile.mkdtemp(dir=folder))
            # Held as long as the process lives.
            self._lock = _locked(self.path)

    def close(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _is_held(folder: Path) -> bool:
    try:
        _locked(folder).close()
    except BlockingIOError:
        return True
    return False


def _locked(folder: Path) -> IO[str]:
    lock = (folder / LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock
