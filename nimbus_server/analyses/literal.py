"""Text as SQL: everything that a caller sent goes through here on its way into a statement."""

from collections.abc import Sequence


def literal(text: str) -> str:
    """A SQL literal of the text. Raises ValueError where it holds NUL, which no text of an event does."""
    if "\0" in text:
        raise ValueError("a text with NUL is no SQL literal")
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Sequence[str]) -> str:
    """Literals of the texts, as they stand in an IN list."""
    return ", ".join(map(literal, texts))


def double(number: float) -> str:
    """A SQL literal of type DOUBLE; a plain `0.1` would be a DECIMAL."""
    return f"'{number!r}'::DOUBLE"


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
