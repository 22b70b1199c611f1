"""The disk that segments are written to: what must be on it before a manifest names it, and when it is too full."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Below it nothing more is written: PostgreSQL may have its data on the same disk.
FREE_BYTES_MIN = 512 * 1024**2


class StorageError(Exception):
    """Segments can't be written: the disk is full, say. The text says why."""


def require_room(folder: Path) -> None:
    """Raise StorageError where there is too little room for more segments, or no folder for them can be made."""
    free = attempt(lambda: shutil.disk_usage(made(folder)).free)
    if free < FREE_BYTES_MIN:
        raise StorageError(f"{folder} has {free // 1024**2} MB free, and segments leave {FREE_BYTES_MIN // 1024**2} MB")


def attempt(work: Callable[[], T]) -> T:
    """What the work returns. Raises StorageError for its OSError."""
    try:
        return work()
    except OSError as error:
        raise StorageError(str(error)) from error


def made(folder: Path) -> Path:
    """The folder, made where it is missing. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def keep(unfinished: Path, path: Path) -> int:
    """Give a file its name once it is on the disk, and return its size in bytes. Raises OSError."""
    _sync(unfinished)
    unfinished.rename(path)
    _sync(path.parent)
    return path.stat().st_size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
