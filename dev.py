"""The pack's development commands. They need only Python 3.10-3.13 and git.

    python dev.py demo [--serve] [--comfyui PATH] [--port N] [WORKFLOW ...]
    python dev.py batch-demo [--workers N]
    python dev.py test [pytest arguments]
    python dev.py check [--fix]
    python dev.py matrix [NAME ...] [-- pytest arguments]
    python dev.py bench [NAME ...] [--quick]
    python dev.py coverage [--write]
    python dev.py train [NAME ...] [--missing]
    python dev.py scripts [--random N]
    python dev.py lock

Each command first creates the environment .venv from requirements/lock.txt, and runs in it.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements" / "lock.txt"
INSTALLER = ROOT / "requirements" / "installer.txt"
STAMP = VENV / "relay-lock-stamp"
SUPPORTED = ((3, 10), (3, 13))


def venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(*command: "str | Path") -> None:
    code = subprocess.call([str(part) for part in command], cwd=str(ROOT))
    if code != 0:
        raise SystemExit(f"dev.py: this command ended with exit code {code}: {' '.join(str(part) for part in command)}")


def ensure_python() -> Path:
    """The environment's Python. Creates the environment if there is none."""
    python = venv_python()
    if not python.exists():
        if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
            raise SystemExit(
                "dev.py: Python {}.{} can't create the environment. Use Python 3.10 to 3.13, "
                "for example `python3.12 dev.py ...`.".format(*sys.version_info[:2])
            )
        print(f"dev.py: creating {VENV}", flush=True)
        try:
            venv.create(str(VENV), with_pip=True)
        except subprocess.CalledProcessError:
            raise SystemExit(
                "dev.py: this Python can't create an environment with pip. On Debian and Ubuntu: "
                "apt-get install python3-venv, delete .venv, and try again."
            ) from None
    return python


def ensure_installer(python: Path) -> None:
    pinned = next(line.split()[0] for line in INSTALLER.read_text("utf-8").splitlines() if line.startswith("uv=="))
    found = f"import importlib.metadata as m; raise SystemExit('uv==' + m.version('uv') != '{pinned}')"
    if subprocess.call([str(python), "-c", found], stderr=subprocess.DEVNULL) == 0:
        return
    if subprocess.call([str(python), "-c", "import pip"], stderr=subprocess.DEVNULL) != 0:
        run(python, "-m", "ensurepip")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", INSTALLER)


def ensure_environment() -> Path:
    """The environment's Python. Installs exactly the locked packages unless they are installed already."""
    python = ensure_python()
    version = subprocess.check_output([str(python), "-c", "import sys; print(sys.version)"], text=True).strip()
    content = "".join(
        path.read_text("utf-8") for path in (LOCK, INSTALLER)
    )  # as text, so that line endings don't matter
    stamp = hashlib.sha256(content.encode()).hexdigest() + "\n" + version
    if not STAMP.exists() or STAMP.read_text("utf-8") != stamp:
        print("dev.py: installing requirements/lock.txt", flush=True)
        ensure_installer(python)
        os.environ.setdefault("UV_HTTP_TIMEOUT", "300")
        run(python, "-m", "uv", "pip", "install", "--python", python, "--require-hashes", "-r", LOCK)
        STAMP.write_text(stamp, "utf-8")
    return python


def relay_module(python: Path, module: str, *arguments: str) -> int:
    """Runs a module of devtools, or pytest, in the environment. Returns its exit code."""
    environment = dict(os.environ)
    paths = [str(ROOT / "devtools"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment.setdefault("PYTHONUTF8", "1")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or every server and subprocess would compile diffusers again
    sys.stdout.flush()
    try:
        return subprocess.call([str(python), "-m", module, *arguments], cwd=str(ROOT), env=environment)
    except KeyboardInterrupt:
        return 130


def lock() -> None:
    python = ensure_python()
    ensure_installer(python)
    options = ["--universal", "--generate-hashes", "--python-version", "3.10", "--no-header", "--no-python-downloads"]
    for source, target in (
        ("requirements/dev.in", LOCK),
        ("requirements/installer.in", INSTALLER),
        ("requirements/registry.in", ROOT / "requirements" / "registry.txt"),
        ("requirements/batch.in", ROOT / "requirements" / "batch.txt"),
    ):
        run(python, "-m", "uv", "pip", "compile", "--quiet", *options, source, "-o", target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("demo", "run the example workflows in a real ComfyUI; --serve keeps the server running"),
        ("batch-demo", "run an example workflow over a table of rows, with two ComfyUIs"),
        ("test", "check the code and run all tests; with arguments, run only what pytest selects"),
        (
            "check",
            "run the formatter, linter, type checker, import rules and the check of the registry's archive; --fix formats the code",
        ),
        ("matrix", "run the tests with the oldest and the newest versions of the requirements"),
        ("train", "train the small models of the tiny world again; see devtools/tiny_world/README.md"),
        ("scripts", "write all examples and random graphs as scripts, run them, and compare the pictures"),
        (
            "coverage",
            "print which rows of diffusers' AutoPipeline tables the pack runs; --write puts the table into README.md",
        ),
        ("bench", "measure the pack against the bare model and ComfyUI's own nodes; see devtools/benchmarks/README.md"),
    ):
        commands.add_parser(name, help=text, add_help=False)
    commands.add_parser("lock", help="update the lock files in requirements")
    known, rest = parser.parse_known_args()
    if known.command == "lock":
        if rest:
            parser.error(f"lock takes no arguments, but got {rest}")
        lock()
        return 0
    module = "benchmarks" if known.command == "bench" else f"relay_dev.{known.command.replace('-', '_')}"
    return relay_module(ensure_environment(), module, *rest)


if __name__ == "__main__":
    raise SystemExit(main())
