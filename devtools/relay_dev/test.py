"""The whole of the tests: `python dev.py test`. Everything that the three layers need is fetched first.

With arguments, only pytest runs, and they are its: `python dev.py test tests/no_host -k layers`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from relay_host.browser import get_browser
from relay_host.comfyui import get_host

from . import check

WORKERS = 2
"""Each with a server of its own: see tests/conftest.py."""


def main(arguments: Sequence[str]) -> int:
    print(f"host: {get_host()}\nbrowser: {get_browser()}", flush=True)
    checked = 0 if arguments else check_and_make_models()
    options = list(arguments) or ["-n", str(WORKERS)]
    tested = int(pytest.main(options))
    if checked != 0:
        print("The tests above have run, but the check before them failed.", flush=True)
    return tested or checked


def check_and_make_models() -> int:
    """The check's result. All tests want the small models: they are made beside it."""
    making = subprocess.Popen([sys.executable, "-m", "relay_dev.model_folders"], stdout=subprocess.DEVNULL)
    checked = check.main([])
    making.wait()  # where it failed, the first test that wants them says why
    return checked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
