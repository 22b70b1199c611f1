"""What a PostgreSQL server that was killed leaves behind."""

import hashlib
from contextlib import suppress
from pathlib import Path

import psutil

# A process that was killed with SIGKILL is gone in milliseconds, unless the disk hangs.
_DEATH_SECONDS_MAX = 5.0


def cluster_name(data: Path) -> str:
    """The name of the cluster in `data`, which all of its processes but the first have in their title."""
    return "nimbus-" + hashlib.sha256(bytes(data)).hexdigest()[:12]


def end_orphans(data: Path) -> None:
    """Kill what is left of a server on `data` whose first process is gone; without effect while that one lives.

    A backend notices the loss only when its query ends, and until then no new server can start: the shared memory is in
    use. It can't do harm to kill it: the next server has to recover from the crash anyway.
    """
    title = f"postgres: {cluster_name(data)}: "
    orphans = []
    for process in psutil.process_iter(["cmdline"]):
        command: list[str] = process.info["cmdline"] or []
        if str(data) in command and Path(command[0]).name == "postgres":
            return
        if command and command[0].startswith(title):
            orphans.append(process)
    for process in orphans:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(orphans, timeout=_DEATH_SECONDS_MAX)


def forget_dead(lock_file: Path) -> None:
    """Remove a lock file of PostgreSQL whose process is dead, even where its number still, or again, stands for one.

    PostgreSQL would take a zombie that nobody has collected, or another program that was given the number, for a server
    on the same data, and refuse to start for as long as that is there.
    """
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(abs(int(lock_file.read_text(encoding="utf-8", errors="replace").split()[0])))
        if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
            lock_file.unlink()


def status(data: Path) -> str:
    """What the server on `data` says of itself in its lock file: `starting`, `ready`, `stopping`; "" where nothing.

    The eighth line of postmaster.pid, as in PostgreSQL's src/include/utils/pidfile.h. Outdated after a kill.
    """
    try:
        return (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()[7].strip()
    except (OSError, IndexError):
        return ""
