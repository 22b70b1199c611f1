"""How fast `nimbus import` takes in a file."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import orjson
from goals import RATE, Figure, compare
from lab import Lab, new_target, settle

from nimbus_server.bench.events import Requests, as_json
from nimbus_server.bench.load import Result

LINES_A_SECOND = 400_000
REQUEST_EVENTS = 1000


async def import_rate(lab: Lab) -> Figure:
    """JSON Lines beside COPY, the start of the command with it."""
    lines = REQUEST_EVENTS * max(1, int(lab.effort.seconds * LINES_A_SECOND / REQUEST_EVENTS))
    file = lab.folder / "history.jsonl"
    _write(file, lines)

    async def turn() -> Result:
        settle(lab.stack, emptied=True)
        command = (sys.executable, "-m", "nimbus_server", "import", file, "--project", new_target(lab.stack).project_id)
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, env=os.environ | {"NIMBUS_DATABASE_URL": lab.stack.dsn()}
        )
        told, _ = await process.communicate()
        result = Result(time.perf_counter() - started, lines)
        if process.returncode or f"{lines:,} events stored".encode() not in told:
            raise RuntimeError(f"the import ended with status {process.returncode}: {told.decode()}")
        return result

    name = f"nimbus import, {lines:,} lines of JSON, from its start to its end"
    references, results = await lab.alternate(name, (await lab.copies()).run, turn)
    figure = compare(name, RATE, "COPY", references, results)
    figure.expect("≥ 0.5", figure.ratio >= 0.5)
    return figure


def _write(file: Path, lines: int) -> None:
    requests = Requests(as_json, "", REQUEST_EVENTS)
    with file.open("wb") as out:
        for _ in range(lines // REQUEST_EVENTS):
            out.writelines(orjson.dumps(event) + b"\n" for event in orjson.loads(requests.next())["events"])
