"""An environment of its own in the work folder, with exactly the packages of one lock file."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from .paths import WORK

STAMP = "relay-lock-stamp"


def locked_environment(name: str, lock: Path) -> Path:
    """The folder with its commands and its Python. The environment is made again when the lock or this Python changes."""
    folder = WORK / name
    stamp, wanted = folder / STAMP, hashlib.sha256(lock.read_bytes()).hexdigest() + sys.version
    WORK.mkdir(parents=True, exist_ok=True)
    with FileLock(WORK / f"{name}.lock"):
        if not stamp.is_file() or stamp.read_text("utf-8") != wanted:
            print(f"Installing {lock.name} into {folder}", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
            install = ["pip", "install", "--quiet", "--require-hashes", "-r", str(lock), "--python"]
            subprocess.run([*uv, *install, str(folder)], check=True)
            stamp.write_text(wanted, "utf-8")
    return folder / ("Scripts" if os.name == "nt" else "bin")


def command_in(folder: Path, name: str) -> Path:
    """A command in such a folder."""
    return folder / (f"{name}.exe" if os.name == "nt" else name)
