"""How much of the machine questions may have."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MEMORY_BYTES_MIN = 512 * 1000**2
MEMORY_SHARE, DISK_SHARE = 0.25, 4
UNITS = {"MB": 1000**2, "GB": 1000**3}
# What a container may have, where this is one.
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
OOM_SCORE, OOM_SCORE_ADJUSTMENT = Path("/proc/self/oom_score_adj"), "500"
NICE = 10


@dataclass(frozen=True, slots=True)
class Budget:
    """What all questions together may have; `disk_bytes` is for what does not fit into memory."""

    threads: int
    memory_bytes: int
    disk_bytes: int


def budget(memory: str | None) -> Budget:
    """The budget for NIMBUS_ANALYST_MEMORY, such as `4GB`; None for a quarter of the memory."""
    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):
        total = min(total, int(CGROUP_MEMORY.read_text(encoding="ascii")))
    memory_bytes = int(memory[:-2]) * UNITS[memory[-2:]] if memory else max(int(total * MEMORY_SHARE), MEMORY_BYTES_MIN)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Budget(max(cores - 1, 1), memory_bytes, DISK_SHARE * memory_bytes)


def give_way() -> None:
    """Have other processes go before this one: for the processor, and where the kernel runs out of memory."""
    os.nice(NICE)
    with suppress(OSError):
        OOM_SCORE.write_text(OOM_SCORE_ADJUSTMENT, encoding="ascii")
