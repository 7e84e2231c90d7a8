"""The benchmarks: `python dev.py bench [NAME ...] [--quick] [--repeat N]`. README.md in this folder explains them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from relay_host.pack import prepare_benchmarks

APART = "--apart"


def main(arguments: Sequence[str]) -> int:
    prepare_benchmarks()
    from benchmarks import apart, command

    if len(arguments) == 2 and arguments[0] == APART:
        return apart.serve(arguments[1])
    return command.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
