"""The Python environment of a named host: the packages that its requirements.txt asks for, on top of this environment.

The carried host needs none, because the lock has its packages. Another host gets an environment of its own in the work folder, which
contains only what this environment lacks, and reads everything else from this environment. So the locked packages stay as they are.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from filelock import FileLock
from packaging.requirements import Requirement

from .comfyui import CARRIED
from .paths import WORK

MADE_FOR = "made-for.txt"
"""What the environment was made for, and constrains what is installed into it: Python, and the versions of `KEPT`."""
KEPT = ("torch", "torchvision")
"""The host runs with these as they are here: it works with any version, and they are several GB."""


def host_python(host: Path) -> Path:
    """The Python that runs the host; creates its environment first if it needs one."""
    folder = host_environment(host)
    if folder is None:
        return Path(sys.executable)
    return _python(folder)


def enter_environment(host: Path) -> None:
    """Makes the packages of the host's environment importable in this process, before those of the same name here."""
    folder = host_environment(host)
    if folder is not None:
        sys.path[:0] = [place for place in packages(folder) if place not in sys.path]
        importlib.invalidate_caches()


def host_environment(host: Path) -> Path | None:
    """The folder of the host's environment, up to date. None if this environment has everything that the host asks for."""
    if host == CARRIED:
        return None
    requirements = host / "requirements.txt"
    if not missing_requirements(requirements, packages()):
        return None
    key = hashlib.sha256(f"{host}\n{sys.prefix}".encode()).hexdigest()[:8]
    folder = WORK / "host-environments" / f"{host.name}-{key}"
    kept = "".join(f"{name}=={version}\n" for name in KEPT if (version := _installed(name, packages())))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        made_for = folder / MADE_FOR
        stamp = f"# Python {' '.join(sys.version.split())}\n{kept}"
        if not made_for.is_file() or made_for.read_text("utf-8") != stamp:
            _create(folder)
            made_for.write_text(stamp, "utf-8")
        missing = missing_requirements(requirements, [*packages(folder), *packages()])
        if missing:
            _install(folder, missing, made_for)
    return folder


def missing_requirements(requirements: Path, places: list[str]) -> list[str]:
    """The lines of a requirements.txt that the packages in these folders don't satisfy; the first folder wins."""
    missing = []
    for line in requirements.read_text("utf-8").splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        version = _installed(requirement.name, places)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            missing.append(line)
    return missing


def packages(folder: Path | None = None) -> list[str]:
    """The folders with the packages of an environment; without a folder, of this one, less what `enter_environment` added."""
    change = {} if folder is None else {"base": str(folder), "platbase": str(folder)}
    return list(dict.fromkeys(sysconfig.get_path(kind, vars=change) for kind in ("purelib", "platlib")))


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _installed(package: str, places: list[str]) -> str | None:
    found = importlib.metadata.distributions(name=package, path=places)
    return next((one.version for one in found), None)


def _create(folder: Path) -> None:
    venv.create(folder, clear=True, with_pip=True)
    read_too = "".join(f"import site; site.addsitedir({place!r})\n" for place in packages())
    (Path(packages(folder)[0]) / "locked_packages.pth").write_text(read_too, "utf-8")


def _install(folder: Path, missing: list[str], constraints: Path) -> None:
    print(f"Installing for this ComfyUI, into {folder}: {', '.join(missing)}", file=sys.stderr, flush=True)
    # pip, because uv doesn't see packages that a .pth file adds and would install torch again.
    pip = [str(_python(folder)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", str(constraints), *missing], check=True)
