"""What is imported has a name: it tells the form, and stands in messages, in identities and beside refused lines."""

import re
from pathlib import Path

# What stands for whatever the process was started with, and says nothing about it.
_DESCRIPTOR = re.compile(r"/dev/(?:stdin|fd/\d+)|/proc/(?:self|\d+)/fd/\d+")
_UNNAMED = "stdin"


def is_unnamed(given: str) -> bool:
    """Whether an argument is standard input, or a pipe that the shell has made for the command."""
    return given == "-" or _DESCRIPTOR.fullmatch(given) is not None


def default_name(number: int) -> Path:
    """The name of what has none, if `number` others of the command have none either."""
    return Path(_UNNAMED if number == 0 else f"{_UNNAMED}-{number + 1}")


def without_gz(path: Path) -> str:
    """The name without its folder, as it is uncompressed."""
    return path.stem if path.suffix.lower() == ".gz" else path.name
