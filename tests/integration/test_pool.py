"""The pool of connections when the database goes away and comes back."""

import asyncio
import time
from pathlib import Path

from pooler import pooler
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from storage import opened, settings_for
from streaming import until

from nimbus_server.errors import NimbusError
from nimbus_server.postgres.database import Database


async def answers(database: Database) -> bool:
    try:
        async with database.transaction() as connection:
            await connection.execute("SELECT 1")
    except NimbusError:
        return False
    return True


async def test_after_an_outage_calls_go_through_as_soon_as_the_database_is_back(dsn: str, scratch: Path) -> None:
    upstream = Path(str(conninfo_to_dict(dsn)["host"])) / ".s.PGSQL.5432"
    with pooler(scratch, upstream) as between:
        async with opened(Database(settings_for(make_conninfo(dsn, host=str(scratch))))) as database:
            assert await answers(database)
            between.go_away()
            callers = [asyncio.create_task(answers(database)) for _ in range(3)]
            # Pauses that double would last for half a minute by then.
            await until(lambda: between.turned_away >= 12)
            between.come_back()
            started = time.monotonic()
            assert await answers(database)
            assert time.monotonic() - started < 2
            await asyncio.gather(*callers)
