"""The whole of the tests: `python dev.py test`. Everything that the three layers need is fetched first.

With arguments, only pytest runs, and they are its: `python dev.py test tests/no_host -k layers`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from . import check
from .browser import get_browser
from .host import get_host

WORKERS = 2
"""Each with a server of its own: see tests/conftest.py."""


def main(arguments: Sequence[str]) -> int:
    checked = 0 if arguments else check.main([])
    print(f"host: {get_host()}\nbrowser: {get_browser()}", flush=True)
    options = list(arguments) or ["-n", str(WORKERS)]
    tested = int(pytest.main(options))
    if checked != 0:
        print("The tests above have run, but the check before them failed.", flush=True)
    return tested or checked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
