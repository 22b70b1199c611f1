"""Kills parts of a running stack as a power cut would, and says when they are back."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import psutil
from conftest import Stack


class Victim(StrEnum):
    """What can be killed, as the supervisor calls it."""

    WORKER = "Worker"
    POSTGRES = "PostgreSQL"
    ENVOY = "Envoy"


# How the processes are told from others: part of their command lines.
MARKERS = {Victim.WORKER: "worker-", Victim.POSTGRES: "/bin/postgres -D", Victim.ENVOY: "envoy.yaml"}
ENDED = re.compile(r"^(Worker \d+|PostgreSQL|Envoy) (?:was killed|ended)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kill:
    """What was killed, and when on the monotonic clock. `is_over` says whether the supervisor has it back."""

    victim: Victim
    name: str
    at: float
    is_over: Callable[[], bool]


def kill(stack: Stack, victim: Victim) -> Kill:
    """Kill -9 of one worker, of Envoy, or of every process of PostgreSQL at once."""
    assert stack.process is not None
    children = psutil.Process(stack.process.pid).children()
    process = random.choice([child for child in children if MARKERS[victim] in " ".join(child.cmdline())])
    name: str = victim
    if victim is Victim.WORKER:
        (number,) = re.findall(r"worker-(\d+)\.sock", " ".join(process.cmdline()))
        name = f"{victim} {number}"
    backs = _backs(stack, name)
    # Held first, so that it makes no more processes while they are listed, and killed last: PostgreSQL does not start
    # while some of the one before are still there.
    process.suspend()
    for one in (*process.children(recursive=True), process):
        one.kill()
    return Kill(victim, name, time.monotonic(), lambda: _backs(stack, name) > backs)


def deaths(stack: Stack) -> int:
    """How often a part of the stack has died, by whatever hand."""
    return len(ENDED.findall("".join(stack.lines)))


def defects(stack: Stack) -> int:
    """Exceptions that no worker should have met."""
    logs = stack.data_dir.glob("logs/worker-*.log")
    return sum(log.read_text(errors="replace").count("defect") for log in logs)


def _backs(stack: Stack, name: str) -> int:
    return "".join(stack.lines).count(f"{name} is back")
