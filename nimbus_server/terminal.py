"""What people are shown: escaped where their terminal could not show it, or would obey it."""

import io
import sys


def escape_what_has_no_encoding() -> None:
    """Let standard output and error write a backslash escape for a character that they can't encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def visible(text: str, encoding: str = "utf-8") -> str:
    """One line of text with escapes in place of what would command a terminal, or is not in its encoding."""
    printable = text if text.isprintable() else "".join(map(_escaped, text))
    return printable.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def visible_lines(text: str, encoding: str = "utf-8") -> str:
    """As `visible`, of text that may have several lines."""
    return "\n".join(visible(line, encoding) for line in text.split("\n"))


def say(text: str, *, err: bool = False) -> None:
    """Print lines on standard output, or on standard error, at once. Raises OSError."""
    stream = sys.stderr if err else sys.stdout
    stream.write(visible_lines(text) + "\n")
    stream.flush()
