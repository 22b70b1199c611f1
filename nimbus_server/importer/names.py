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


def printable(name: Path | str) -> str:
    """The name on one line of a terminal: what is no UTF-8, or no visible character, is escaped."""
    text = str(name)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
