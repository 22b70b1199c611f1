"""Which database an import goes to."""

import os
from urllib.parse import quote

from pydantic import SecretStr

from nimbus_server.errors import StartupError
from nimbus_server.local.folder import POSTGRES_PORT, DataFolder
from nimbus_server.local.postgres import DATABASE, USER, forget_environment
from nimbus_server.settings import Settings

# One commits, one makes partitions.
CONNECTIONS = 2


def with_database(settings: Settings) -> Settings:
    """The settings with their database, where they name none that of the `nimbus up` on their data folder.

    Raises StartupError where none runs there.
    """
    url = settings.database_url
    if url is None:
        folder = DataFolder(settings.data_dir.expanduser().resolve())
        if not folder.postgres_socket.exists():
            raise StartupError(
                f"No Nimbus runs on the data folder {folder.root}. Start it with `nimbus up`, name another with "
                "--data-dir, or set NIMBUS_DATABASE_URL."
            )
        forget_environment()
        home = quote(os.fsencode(folder.postgres), safe="")
        url = SecretStr(f"postgresql:///{DATABASE}?host={home}&port={POSTGRES_PORT}&user={USER}")
    return settings.model_copy(update={"database_url": url, "db_pool_size": CONNECTIONS, "db_max_overflow": 0})
