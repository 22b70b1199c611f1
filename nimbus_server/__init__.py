"""Nimbus: event analytics that a team runs itself. README.md says in which folder what happens."""

from importlib.metadata import version

__version__ = version("nimbus-server")
