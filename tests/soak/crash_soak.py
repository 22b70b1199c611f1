"""`make soak`: kills parts of a stack at random for long, and ends with 1 where an event was lost or stored twice."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from conftest import Stack
from crash_harness import Crashes, Report
from crash_killer import Victim

PROJECTS = 3
BATCHES = 300


def victims(kills: int, seconds: float) -> Iterator[Victim]:
    """At least so many, and for at least so long."""
    started, killed = time.monotonic(), 0
    while killed < kills or time.monotonic() - started < seconds:
        killed += 1
        yield random.choice(list(Victim))


async def soak(folder: Path, kills: int, seconds: float) -> Report:
    stack = Stack(folder / "data", {"NIMBUS_WORKERS": "2"}).start()
    try:
        crashes = Crashes(stack, folder / "ledger", projects=PROJECTS, batches=BATCHES, say=partial(print, flush=True))
        return await crashes.run(victims(kills, seconds))
    finally:
        stack.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    random.seed(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="nimbus-soak-"))
    folder.chmod(0o755)
    print(f"At least {options.kills} kills; seed {options.seed}; data, ledger and logs in {folder}")
    report = asyncio.run(soak(folder, options.kills, options.seconds))
    print(report.table())
    if not report.is_clean:
        print(*report.refused[:10], f"Something is wrong. All of it is kept in {folder}.", sep="\n")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
