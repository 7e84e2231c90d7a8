"""Sets glibc's allocator the same way in all measured processes, and counts the page faults that show its effect.

By default, glibc maps large blocks of memory and returns them to the system when they are freed. The next block of that size
costs a page fault for every 4 KB, and the same step can take 25 % longer. glibc adapts its threshold for large blocks while a
process runs, so two identical processes can differ.
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
"""Environment in which glibc maps no blocks, returns no memory, and requests 1 GB at a time from the system."""
FAULTS = "_faults"
"""Suffix for a quantity's minor page faults per step: "denoising" -> "denoising_faults"."""
MINOR_FAULTS_FIELD = 9
"""Index of the field in /proc/PID/stat, from 0."""


def is_glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def variables(keeps_memory: bool = True) -> dict[str, str | None]:
    """Changes to the environment of a measured process; None removes a variable."""
    if not is_glibc():
        return {}
    return dict(KEEPS) if keeps_memory else dict.fromkeys(KEEPS)


def in_force(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The allocator variables that are set in an environment (default: this process's)."""
    environment = os.environ if environment is None else environment
    return {name: environment[name] for name in KEEPS if name in environment}


def changed(environment: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**environment, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def minor_faults(pid: int | None = None) -> int | None:
    """Minor page faults of all threads since the process started; None if the system doesn't report them (not Linux)."""
    file = Path(f"/proc/{pid or os.getpid()}/stat")
    if not file.is_file():
        return None
    after_name = file.read_text("utf-8", errors="replace").rpartition(")")[2].split()  # starts at the third field
    return int(after_name[MINOR_FAULTS_FIELD - 2])


def per_step(quantity: str, before: int | None, after: int | None, steps: float) -> dict[str, float]:
    """The quantity's minor page faults per step; {} if the system doesn't report them."""
    return {} if before is None or after is None else {quantity + FAULTS: (after - before) / steps}
