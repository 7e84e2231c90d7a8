"""Runs formatter, linter, type checker, import direction and security scans: `python dev.py check [--fix]`."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from relay_host.paths import ROOT, WORK

from . import layers, registry_archive

TYPED = {name: ROOT / "devtools" / name for name in layers.DEVTOOLS} | {layers.BATCH: ROOT / "batch" / layers.BATCH}
"""Packages outside the pack whose types are checked."""
MIRROR = WORK / "types"
PACK = ("__init__.py", "nodes", "pipelines", "script", "weighting")
REGISTRY_RULES = "S102,S307,E702"
"""The Comfy registry rejects a pack for these: exec, eval, and several statements on one line."""


def run(command: Sequence[str]) -> int:
    return subprocess.call([sys.executable, "-m", *command], cwd=ROOT)


def check_types() -> int:
    """Runs mypy on the pack and on the packages in devtools.

    The pack's folder can have any name, even one that isn't a valid package name, and its imports are relative.
    So mypy checks a copy of the sources under the name diffusers_relay, and the paths in its output are mapped back.
    """
    sources = {file: "diffusers_relay" / file.relative_to(ROOT) for file in layers.pack_files()}
    for name, folder in TYPED.items():
        sources |= {file: name / file.relative_to(folder) for file in folder.rglob("*.py")}
    copies = {MIRROR / target for target in sources.values()}
    for stale in set(MIRROR.rglob("*.py")) - copies:
        stale.unlink()
    for file, target in sources.items():
        copy = MIRROR / target
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists() or copy.read_bytes() != file.read_bytes():
            shutil.copyfile(file, copy)
    packages = sorted({target.parts[0] for target in sources.values()})
    command = ["mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(MIRROR / ".mypy_cache")]
    for package in packages:
        command += ["-p", package]
    done = subprocess.run([sys.executable, "-m", *command], cwd=MIRROR, capture_output=True, text=True)
    text = re.sub(r"^diffusers_relay[/\\]", "", done.stdout, flags=re.MULTILINE)
    for name, folder in TYPED.items():
        text = re.sub(rf"^{name}[/\\]", f"{folder.relative_to(ROOT).as_posix()}/", text, flags=re.MULTILINE)
    print(text.strip() + done.stderr, flush=True)
    return done.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dev.py check", description=__doc__)
    parser.add_argument("--fix", action="store_true", help="format the code and apply the linter's fixes")
    fix = parser.parse_args(arguments).fix
    steps = {
        "ruff check": lambda: run(["ruff", "check", "--output-format=concise", *(["--fix"] if fix else [])]),
        "ruff format": lambda: run(["ruff", "format", *([] if fix else ["--check", "--output-format=concise"])]),
        "import direction": layers.main,
        "mypy": check_types,
        "bandit": lambda: run(["bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", *PACK]),
        "the registry's rules": lambda: run(["ruff", "check", "--isolated", "--select", REGISTRY_RULES, *PACK]),
        "the archive for the registry": registry_archive.main,
    }
    failed = []
    for name, step in steps.items():
        print(f"-- {name}", flush=True)
        began = time.monotonic()
        if step() != 0:
            failed.append(name)
        print(f"   {time.monotonic() - began:.1f} s", flush=True)
    print(f"check failed: {', '.join(failed)}" if failed else "check passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
