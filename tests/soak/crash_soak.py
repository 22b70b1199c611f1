"""`make soak`: kills parts of a stack at random for long, and ends with 1 where an event was lost or came twice.

Writers send by every way in while subscribers follow by every way out.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from conftest import Stack
from crash_harness import Crashes, Report
from crash_killer import Victim
from crash_subscribers import followed, subscribers
from own_valkey import Valkey

PROJECTS = 3
BATCHES = 300


def victims(kills: int, seconds: float) -> Iterator[Victim]:
    """At least so many, and for at least so long."""
    started, killed = time.monotonic(), 0
    while killed < kills or time.monotonic() - started < seconds:
        killed += 1
        yield random.choice(list(Victim))


async def soak(folder: Path, kills: int, seconds: float) -> Report:
    with Valkey(folder) as valkey:
        stack = Stack(folder / "data", {"NIMBUS_WORKERS": "2", "NIMBUS_REDIS_URL": valkey.url}).start()
        try:
            say = partial(print, flush=True)
            crashes = Crashes(stack, folder / "ledger", projects=PROJECTS, batches=BATCHES, valkey=valkey, say=say)
            readers = subscribers(stack, crashes.accounts)
            running = asyncio.create_task(crashes.run(victims(kills, seconds)))
            found = await followed(stack, readers, running)
        finally:
            stack.stop()
    report = await running
    opened = {"streams opened": sum(reader.streams for reader in readers)}
    print(opened, *(line for reader in readers for line in reader.wrong[:10]), sep="\n")
    return replace(report, violations=report.violations | found)


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
