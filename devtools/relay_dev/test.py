"""Runs all tests: `python dev.py test`. First gets everything that the layers need.

With arguments, runs only pytest, with those arguments: `python dev.py test tests/no_host -k layers`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from relay_host.batch import batch_commands
from relay_host.browser import get_browser
from relay_host.comfyui import get_host

from . import check

WORKERS = 2
"""Each has its own server: see tests/conftest.py."""
ALONE = ("tests/batch/test_ray_here.py", "tests/batch/test_ray_machines.py")
"""Run after the others, with nothing beside them: Ray ends its nodes if the machine is too busy to start them in time."""


def main(arguments: Sequence[str]) -> int:
    print(f"host: {get_host()}\nbrowser: {get_browser()}\nbatch: {batch_commands()}", flush=True)
    checked = 0 if arguments else check_and_make_models()
    tested = int(pytest.main(list(arguments) or ["-n", str(WORKERS)]))
    alone = 0 if arguments else run_alone()
    if tested != 0 and not arguments:
        print("The last tests above are those on Ray. Of the tests before them, some failed.", flush=True)
    if checked != 0:
        print("The tests above ran, but the check before them failed.", flush=True)
    return tested or alone or checked


def run_alone() -> int:
    """Returns pytest's exit code. What fails runs once more: on a machine that others use too, Ray's own start can fail."""
    command = [sys.executable, "-m", "pytest", "-q", *ALONE]
    if subprocess.run(command).returncode == 0:
        return 0
    print("What failed runs once more.", flush=True)
    return subprocess.run([*command, "--last-failed", "--last-failed-no-failures=none"]).returncode


def check_and_make_models() -> int:
    """Returns the check's exit code. Makes the small models, which all tests need, in parallel."""
    making = subprocess.Popen([sys.executable, "-m", "relay_dev.model_folders"], stdout=subprocess.DEVNULL)
    checked = check.main([])
    making.wait()  # if it failed, the first test that needs them says why
    return checked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
