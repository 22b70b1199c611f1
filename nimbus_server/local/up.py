"""`nimbus up`: the whole stack under one supervisor, until it is asked to stop."""

import asyncio
import signal
import time

from nimbus_server import settings as nimbus_settings
from nimbus_server.local.console import Console
from nimbus_server.local.ports import host_to_reach
from nimbus_server.local.stack import Stack
from nimbus_server.settings import Settings

# Wrappers such as `uv run` pass on a Ctrl-C that the terminal sends us too: that is one request, not two.
_SAME_REQUEST_SECONDS = 0.5


async def up(settings: Settings) -> int:
    """Run Nimbus until SIGINT or SIGTERM, and return the exit status: 0.

    Raises StartupError where it can't start; all that had been started is stopped by then.
    """
    console = Console()
    for name in nimbus_settings.unknown_variables():
        console.warn(f"{name} is set, but means nothing to this version of Nimbus.")
    stack = Stack(settings, console)
    started_at = time.monotonic()
    asked = _listen_for_signals(stack, console)
    starting = asyncio.create_task(stack.start())
    waiting = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            _welcome(stack, console, time.monotonic() - started_at)
            await waiting
    finally:
        waiting.cancel()
        if starting.cancel():
            await asyncio.wait({starting})
        await stack.stop()
    console.line("Nimbus has stopped.")
    return 0


def _listen_for_signals(stack: Stack, console: Console) -> asyncio.Event:
    """An event that the first SIGINT, SIGTERM or SIGHUP sets; one more of them hurries."""
    asked = asyncio.Event()
    asked_at = 0.0

    def on_signal() -> None:
        nonlocal asked_at
        if not asked.is_set():
            asked_at = time.monotonic()
            asked.set()
            console.line("Stopping; a second request gives up what is in flight.")
        elif time.monotonic() - asked_at > _SAME_REQUEST_SECONDS:
            stack.hurry()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, on_signal)
    loop.add_signal_handler(signal.SIGTERM, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        loop.add_signal_handler(signal.SIGHUP, on_signal)
    return asked


def _welcome(stack: Stack, console: Console, seconds: float) -> None:
    settings = stack.settings
    host = host_to_reach(settings.bind_address)
    base = f"http://{host}:{settings.http_port}"
    console.line(f"\nNimbus is up after {seconds:.1f} s. Ctrl-C stops it.\n", style="bold")
    for what, where in (
        ("REST", base),
        ("gRPC", f"{host}:{settings.grpc_port}"),
        ("Docs", f"{base}/docs"),
        *([("Metrics", f"http://{host}:{settings.metrics_port}/metrics")] if settings.metrics_port else []),
        ("Data", stack.folder.root),
        ("Logs", stack.folder.logs),
    ):
        console.line(f"  {what}  {where}")
    console.line(
        "\nA first request:\n\n"
        f"  curl -sS {base}/v1/auth/register -H 'content-type: application/json' \\\n"
        """    -d '{"email": "ada@example.com", "password": "a demo password"}'\n"""
    )
