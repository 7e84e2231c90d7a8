"""The machine that the results were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from relay_host.comfyui import HOST_VERSION

LIBRARIES = ("torch", "diffusers", "transformers", "compel")


def machine() -> dict[str, str]:
    import psutil
    import torch

    found = {
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "ComfyUI": os.environ.get("RELAY_COMFYUI", HOST_VERSION),
    }
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found | {library: importlib.metadata.version(library) for library in LIBRARIES}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def load_average() -> float | None:
    """Runnable processes over the last minute; above the number of cores, the results mean little."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
