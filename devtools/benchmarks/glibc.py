"""glibc's allocator, set alike in all processes that are measured, and the page faults that show what it does.

As it comes, glibc maps large blocks of memory and gives them back to the system when they are freed. The next block of that size
costs a page fault for every 4 KB, and the same step can take a quarter longer. Which blocks count as large is adapted while a
process runs, so two equal processes can differ.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

KEEPS = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}
"""Environment of a process in which glibc maps no blocks, gives nothing back, and asks the system for 1 GB at a time."""
FAULTS = "_faults"
"""Ends the name of a quantity's minor page faults a step, e.g. "denoising_faults" beside "denoising"."""
MINOR_FAULTS_FIELD = 9
"""Of /proc/PID/stat, counted from 0."""


def is_glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def variables(keeps_memory: bool = True) -> dict[str, str | None]:
    """What is put on top of the environment of a measured process; None: the variable is taken away."""
    if not is_glibc():
        return {}
    return dict(KEEPS) if keeps_memory else dict.fromkeys(KEEPS)


def in_force(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Those of the variables that an environment has; this process's, where none is given."""
    environment = os.environ if environment is None else environment
    return {name: environment[name] for name in KEEPS if name in environment}


def changed(environment: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**environment, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def minor_faults(pid: int | None = None) -> int | None:
    """Of all threads of the process since its start; None where the system does not tell (not Linux)."""
    file = Path(f"/proc/{pid or os.getpid()}/stat")
    if not file.is_file():
        return None
    after_name = file.read_text("utf-8", errors="replace").rpartition(")")[2].split()  # from the third field on
    return int(after_name[MINOR_FAULTS_FIELD - 2])


def per_step(quantity: str, before: int | None, after: int | None, steps: float) -> dict[str, float]:
    """The quantity's minor page faults a step, {} where the system does not tell."""
    return {} if before is None or after is None else {quantity + FAULTS: (after - before) / steps}
