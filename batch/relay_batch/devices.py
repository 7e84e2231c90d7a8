"""Which GPU each of a machine's workers uses."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
LIST_GPUS = ("--query-gpu=index", "--format=csv,noheader")


def visible_devices() -> list[str]:
    """The GPUs that this process may use, by the names in CUDA_VISIBLE_DEVICES; else those that the driver lists; else none."""
    for variable in VARIABLES:
        if variable in os.environ:
            return [one.strip() for one in os.environ[variable].split(",") if one.strip()]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, *LIST_GPUS], capture_output=True, text=True, timeout=60)
    return listed.stdout.split() if listed.returncode == 0 else []


def of_worker(devices: Sequence[str], number: int) -> Mapping[str, str]:
    """The variables that give a worker its GPU; none if there is nothing to share."""
    return {} if not devices else dict.fromkeys(VARIABLES, devices[number % len(devices)])
