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
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return printable.encode(encoding, "backslashreplace").decode(encoding)


def visible_lines(text: str, encoding: str = "utf-8") -> str:
    """As `visible`, of text that may have several lines."""
    return "\n".join(visible(line, encoding) for line in text.split("\n"))


def say(text: str, *, err: bool = False) -> None:
    """Print lines on standard output, or on standard error, at once. Raises OSError."""
    stream = sys.stderr if err else sys.stdout
    stream.write(visible_lines(text) + "\n")
    stream.flush()
