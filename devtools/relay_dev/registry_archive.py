"""Validates the archive that would be published in the registry, as comfy-cli packs it, with `comfy node validate`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from relay_host.locked_environment import command_in, locked_environment
from relay_host.paths import ROOT

LOCK = ROOT / "requirements" / "registry.txt"
"""comfy-cli with all that it needs. Its requirements have an environment of their own."""
PASSED = "All validation checks passed"
COMPLAINTS = ("warning", "error")
"""`comfy node validate` also exits with 0 when it warns that a field is left out of the page."""
NOT_PUBLISHED = {"batch", "devtools", "tests", "requirements", "docs", "dev.py"}


def main() -> int:
    """0 if the archive is complete and valid."""
    comfy = installed_comfy()
    with tempfile.TemporaryDirectory(prefix="relay-registry-") as name:
        source, archive = Path(name) / "source", Path(name) / "archive"
        files = copy_files(source)
        code, output = run_comfy(comfy, "pack", source)
        if code != 0:
            print(output)
            return 1
        with zipfile.ZipFile(source / "node.zip") as packed:
            found = faults(set(packed.namelist()), files)
            packed.extractall(archive)
        found += complaints(*run_comfy(comfy, "validate", archive))
        size = (source / "node.zip").stat().st_size
    print("\n".join(found) if found else f"The archive ({size / 2**20:.1f} MiB) is valid")
    return 1 if found else 0


def installed_comfy() -> Path:
    """The command `comfy`."""
    return command_in(locked_environment("comfy-cli", LOCK), "comfy")


def copy_files(target: Path) -> set[str]:
    """Copies the files that git has or would add, and lists them. Outside of a repository, comfy-cli then packs all of them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode("utf-8")
    files = {name for name in listed.split("\0") if (ROOT / name).is_file()}
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)
    return files


def run_comfy(comfy: Path, command: str, folder: Path) -> tuple[int, str]:
    """The exit code and the output of `comfy node COMMAND` in a folder. Nothing is sent, and no user's settings are read."""
    environment = {**os.environ, "DO_NOT_TRACK": "1", "HOME": str(folder.parent), "NO_COLOR": "1", "COLUMNS": "200"}
    environment["XDG_CONFIG_HOME"] = environment["APPDATA"] = str(folder.parent / "settings")
    environment["RUFF_NO_CACHE"] = "true"
    done = subprocess.run(
        [str(comfy), "--skip-prompt", "node", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    return done.returncode, done.stdout


def faults(packed: set[str], files: set[str]) -> list[str]:
    """What is wrong with the files in an archive of the project's ``files``."""
    wanted = {file for file in files if file.split("/")[0] not in NOT_PUBLISHED and not file.startswith(".")}
    return [
        *(f"{name} is missing from the archive: see .comfyignore" for name in sorted(wanted - packed)),
        *(f"{name} does not belong into the archive: see .comfyignore" for name in sorted(packed - wanted)),
    ]


def complaints(code: int, output: str) -> list[str]:
    """What `comfy node validate` found."""
    lines = [line for line in output.splitlines() if line.lower().lstrip().startswith(COMPLAINTS)]
    if code == 0 and PASSED in output and not lines:
        return []
    return [f"comfy node validate ended with exit code {code}:", output.strip()]


if __name__ == "__main__":
    sys.exit(main())
