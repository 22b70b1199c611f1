"""What the commands of `nimbus` have in common: settings, and how a failure is told."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from nimbus_server import settings as settings_module
from nimbus_server.errors import StartupError
from nimbus_server.settings import Settings
from nimbus_server.terminal import say

T = TypeVar("T")
DataDir = Annotated[
    Path | None, typer.Option(help="Where the database, secrets and logs are kept.", show_default=".nimbus")
]


def load(**overrides: object) -> Settings:
    """The settings in force, but for `overrides`; ends the process with a sentence where one is wrong."""
    try:
        return settings_module.load(**overrides)
    except StartupError as error:
        fail(str(error))


def run(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the coroutine returns; ends the process with the sentence of its StartupError."""
    try:
        return asyncio.run(start())
    except StartupError as error:
        fail(str(error))


def fail(sentence: str) -> NoReturn:
    """End the process with status 1 and a sentence on standard error."""
    say(sentence, err=True)
    raise typer.Exit(1)
