"""Which Nimbus this is. To look it up takes 50 ms, which a process that need not know it saves."""

from importlib.metadata import version

VERSION = version("nimbus-server")
