"""Writes a graph as a diffusers script: python -m relay_script picture.png > picture.py

Needs neither ComfyUI nor PyTorch. `python -m relay_script --help` shows what it takes.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

PACK = "diffusers_relay"


def main() -> int:
    # The pack's folder can have any name, and its __init__.py needs ComfyUI: only the part that writes scripts is imported.
    pack = ModuleType(PACK)
    pack.__path__ = [str(Path(__file__).resolve().parent)]
    sys.modules.setdefault(PACK, pack)
    return int(importlib.import_module(f"{PACK}.script.command").main())


if __name__ == "__main__":
    raise SystemExit(main())
