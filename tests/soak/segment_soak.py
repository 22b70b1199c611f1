"""`make soak`: kills writers of a log and of its segments at random, and ends with 1 where the two differ."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from conftest import Stack, new_account
from segment_crash import Crashes
from storage import opened, settings_for

from nimbus_server.clock import now
from nimbus_server.importer.target import with_database
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.settings import load

FIGURES = ("kills", "checks", "written", "erased", "segments_made", "segments_left")


async def soak(folder: Path, project: str, kills: int, seconds: float) -> Crashes:
    """The report of a project of that stack."""
    url = with_database(load(data_dir=folder / "data")).database_url
    assert url is not None
    dsn = url.get_secret_value()
    async with opened(Database(settings_for(dsn))) as database:
        await Partitions(database).ensure_ahead(now() - timedelta(days=40))
        crashes = Crashes(dsn, database, folder / "segments", UUID(project))
        await crashes.run(seconds, kills)
        return crashes


def main() -> int:
    """Print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    random.seed(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="nimbus-soak-"))
    folder.chmod(0o755)
    print(f"At least {options.kills} kills; seed {options.seed}; data and segments in {folder}")
    stack = Stack(folder / "data", {"NIMBUS_WORKERS": "1"}).start()
    try:
        project = new_account(stack).project_id
        report = asyncio.run(soak(folder, project, options.kills, options.seconds))
    finally:
        stack.stop()
    print(*(f"{name} {getattr(report, name):,}" for name in FIGURES), *report.wrong[:10], sep="\n")
    if report.wrong:
        print(f"Something is wrong. All of it is kept in {folder}.")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
