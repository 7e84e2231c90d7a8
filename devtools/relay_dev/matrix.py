"""Runs the tests on other versions: `python dev.py matrix [NAME ...] [-- pytest arguments]`.

Each row is a Python version with versions of the pack's requirements: the oldest that requirements.txt allows, or the newest in the
registry. Each row gets its own environment in .relay/matrix and runs the tests of the lower layers, the tests inside the host's process,
and the graphs that must match a script's numbers on a real server. If RELAY_COMFYUI names a ComfyUI, all rows use it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from relay_host.comfyui import get_host
from relay_host.paths import ROOT, WORK

FOLDER = WORK / "matrix"
TESTS = ["tests/no_host", "tests/in_host", "tests/in_server/test_graph_equals_script.py"]
SHOWN = ("torch", "diffusers", "transformers", "compel", "peft", "accelerate", "huggingface-hub", "safetensors")


@dataclass(frozen=True)
class Row:
    name: str
    python: str
    oldest: bool

    @property
    def folder(self) -> Path:
        return FOLDER / self.name


ROWS = [
    Row("oldest", "3.10", oldest=True),
    Row("oldest-3.12", "3.12", oldest=True),
    Row("newest-3.11", "3.11", oldest=False),
    Row("newest", "3.13", oldest=False),
]


def wanted_packages(row: Row) -> list[str]:
    """The pack's requirements at the row's end of their ranges, and the packages of the host and the tests, without the lock's versions."""
    pack = [Requirement(line) for line in requirement_lines(ROOT / "requirements.txt")]
    named = {requirement.name for requirement in pack}
    others = [
        Requirement(line) for line in requirement_lines(ROOT / "requirements" / "dev.in") if not line.startswith("-r")
    ]
    free = [one for one in others if one.name not in named and one.name not in ("torch", "torchvision")]
    return [
        *(oldest(one) if row.oldest else str(one) for one in pack),
        *("torch", "torchvision", "uv"),
        *sorted({str(one) for one in free}),
    ]


def oldest(requirement: Requirement) -> str:
    """Pins a requirement to the lowest version that it allows; returns it unchanged if it has no lower bound."""
    floors = [one.version for one in requirement.specifier if one.operator == ">="]
    return f"{requirement.name}=={floors[0]}" if floors else str(requirement)


def requirement_lines(file: Path) -> list[str]:
    """The lines of a requirements file, without comments."""
    return [line for line in (one.split("#")[0].strip() for one in file.read_text("utf-8").splitlines()) if line]


def make_environment(row: Row) -> Path:
    """Creates or updates the row's environment. Returns its Python."""
    uv = [sys.executable, "-m", "uv"]
    python = row.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([*uv, "venv", "--quiet", "--python", find_python(row.python), str(row.folder)], check=True)
    wanted = row.folder / "wanted.txt"
    wanted.write_text("\n".join(wanted_packages(row)) + "\n", "utf-8")
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(wanted)], check=True)
    return python


def find_python(version: str) -> str:
    """A Python of that version that actually runs: a version manager's placeholder may not."""
    candidates = [
        f"python{version}",
        *(str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    for candidate in candidates:
        found = shutil.which(candidate)
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return version  # uv looks further


def versions(python: Path) -> dict[str, str]:
    ask = (
        "import importlib.metadata as m, platform; print('python', platform.python_version()); "
        f"[print(name, m.version(name)) for name in {SHOWN}]"
    )
    said = subprocess.check_output([str(python), "-c", ask], text=True)
    return dict(line.split(" ", 1) for line in said.splitlines())


def run(row: Row, arguments: Sequence[str]) -> tuple[str, int]:
    """A line for the table, and pytest's exit code."""
    python, began = make_environment(row), time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "devtools"), "PYTHONUTF8": "1"}
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or TESTS)]
    log = row.folder / "tests.log"
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.call(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
    text = log.read_text("utf-8", errors="replace")
    counted = re.findall(r"^(?=.*\d+ (?:passed|failed|error)).*$", text, re.MULTILINE)
    result = re.sub(r"[=]| in [\d.]+s.*", "", counted[-1]).strip() if counted else f"exit code {code}, see {log}"
    known = versions(python)
    cells = [row.name, known.pop("python"), *(known[name] for name in SHOWN), result, f"{time.monotonic() - began:.0f}"]
    return "| " + " | ".join(cells) + " |", code


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py matrix", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(row.name for row in ROWS)}; default: all"
    )
    at = arguments.index("--") if "--" in arguments else len(arguments)
    names, for_pytest = parser.parse_args(arguments[:at]).names, arguments[at + 1 :]
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no row is called {', '.join(sorted(unknown))}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"host: {get_host()}", flush=True)
    header = ["row", "Python", *SHOWN, "tests", "s"]
    codes: list[int] = []
    table = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in ROWS:
        if not names or row.name in names:
            print(f"{row.name} ...", flush=True)
            line, code = run(row, for_pytest)
            table.append(line)
            codes.append(code)
            print(line, flush=True)
    (FOLDER / "table.md").write_text("\n".join(table) + "\n", "utf-8")
    print("\n".join(table))
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
