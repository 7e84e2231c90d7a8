"""Writes graphs as scripts, runs them, and compares their pictures with the graphs': `python dev.py scripts [--random N]`.

All examples, and N random graphs (200). It takes an hour or more; tests/in_server/test_scripts.py is its short form.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from relay_host.paths import ROOT

TESTS = ROOT / "tests" / "in_server" / "every_script.py"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dev.py scripts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--random", type=int, default=200, help="how many random graphs; default: 200")
    options = parser.parse_args(arguments)
    environment = {**os.environ, "RELAY_SCRIPTS": str(options.random)}
    command = [sys.executable, "-m", "pytest", str(TESTS), "-q", "-s", "-n0", "-p", "no:cacheprovider"]
    return subprocess.call(command, cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main())
