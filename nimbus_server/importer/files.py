"""What the arguments of `nimbus import` stand for: files, pipes, standard input."""

import errno
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from nimbus_server.errors import StartupError
from nimbus_server.importer.csv_reader import HeaderError
from nimbus_server.importer.lines import STANDARD_INPUT, Lines
from nimbus_server.importer.names import default_name, is_unnamed, without_gz
from nimbus_server.importer.source import READERS, SUFFIXES, Format, Source
from nimbus_server.terminal import visible


def find_sources(given: Sequence[str], form: Format | None, names: Sequence[str] = ()) -> list[Source]:
    """What to import, in order; `-` is standard input. `names` are those of what has none, in order.

    Raises StartupError as find_source does, and where what can be read once is given twice. Call it before the process
    has opened anything: `/dev/fd/N` must be what its caller means.
    """
    unnamed = sum(map(is_unnamed, given))
    if names and len(names) != unnamed:
        raise StartupError(
            f"--name is for what has no name, such as -: that is {unnamed} of what is to be imported, not {len(names)}."
        )
    if len(set(names)) < len(names) or not all(Path(name).name for name in names):
        raise StartupError("A --name must not be empty, and each must be another one.")
    upcoming = iter(list(map(Path, names)) or list(map(default_name, range(unnamed))))
    sources: list[Source] = []
    for argument in given:
        path = None if argument == "-" else Path(argument)
        source = find_source(path, form, next(upcoming) if is_unnamed(argument) else None)
        if source.once and source.inode in [other.inode for other in sources if other.once]:
            raise StartupError(f"{_shown(path)} is given twice, but can be read only once.")
        sources.append(source)
    return sources


def find_source(path: Path | None, form: Format | None, name: Path | None = None) -> Source:
    """A file or pipe, or standard input where there is no path. `name` is the one that it has in place of its path.

    The form is what the name's suffix tells where none is given. Pipes are not opened: whoever writes to one would be
    killed when it is closed again. Raises StartupError where it can't be read, its form is not known, or the header of
    a file is wrong.
    """
    try:
        status = _status(path)
    except OSError as error:
        raise StartupError(f"{_shown(path)} can't be read: {_why(path, error)}.") from None
    name = name or path or default_name(0)
    form = form or SUFFIXES.get(Path(without_gz(name)).suffix.lower())
    if form is None:
        raise StartupError(f"{_shown(path)}: say with --format whether this is jsonl or csv; its name does not tell.")
    is_file = stat.S_ISREG(status.st_mode)
    behind = os.lseek(STANDARD_INPUT, 0, os.SEEK_CUR) if is_file and path is None else 0
    size = max(status.st_size - behind, 0) if is_file else None
    once = not is_file or path is None or is_unnamed(str(path))
    source = Source(path, name, form, size, once, (status.st_dev, status.st_ino))
    if is_file and path is not None:
        _look_into(source)
    return source


def _status(path: Path | None) -> os.stat_result:
    """Raises OSError where it can't be read, and StartupError where it is nothing to be imported."""
    shown = _shown(path)
    if path is None:
        # Without it, its number may be that of something which the process has opened itself.
        if sys.stdin is None:
            raise StartupError(f"{shown} is closed: pipe something into the command, or name a file.")
        status, is_terminal = os.fstat(STANDARD_INPUT), os.isatty(STANDARD_INPUT)
    else:
        status, is_terminal = path.stat(), False
        if stat.S_ISDIR(status.st_mode):
            raise StartupError(f"{shown} is a folder: name the files in it.")
        if stat.S_ISSOCK(status.st_mode):
            raise StartupError(f"{shown} is a socket: pipe what comes from it into the command, with - in its place.")
        if stat.S_ISCHR(status.st_mode):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
            is_terminal = os.isatty(descriptor)
            os.close(descriptor)
        elif not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if is_terminal:
        raise StartupError(f"{shown} is a terminal: pipe something into the command, or name a file.")
    return status


def _look_into(source: Source) -> None:
    """Open a file and read its header, where it has one. Raises StartupError where that can't be done."""
    shown = visible(str(source.name))
    try:
        with Lines(source.path) as lines:
            READERS[source.format](lines)
    except OSError as error:
        raise StartupError(f"{shown} can't be read: {error.strerror}.") from None
    except HeaderError as error:
        raise StartupError(f"The header of {shown} is wrong: {visible(str(error))}.") from None


def _why(path: Path | None, error: OSError) -> str | None:
    if path is not None and isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"it is a link to {visible(str(path.readlink()))}, which is not there"
    return error.strerror


def _shown(path: Path | None) -> str:
    return visible(str(path)) if path else "Standard input"
