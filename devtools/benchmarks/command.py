"""Measures what the pack costs, with contenders taking turns (A B A B), and compares the results with their targets.

    python dev.py bench                     all benchmarks; run nothing else on the machine
    python dev.py bench overhead native     only these
    python dev.py bench --list              lists the benchmarks
    python dev.py bench --write             writes the existing results as tables into README.md

On first use, it makes models of the real architectures with random weights, under .relay/bench/models.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from relay_host.paths import WORK

from . import results, suite
from .machine import load_average, machine
from .rows import Row, not_there
from .settings import Settings
from .table import text_table

BENCH = WORK / "bench"
README = Path(__file__).with_name("README.md")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dev.py bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="see --list; none: all of them")
    parser.add_argument("--list", action="store_true", help="list the benchmarks without running them")
    parser.add_argument(
        "--write", action="store_true", help="write the README's tables from the results without running anything"
    )
    parser.add_argument("--quick", action="store_true", help="SD1.5 only, few steps, two rounds")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds of each comparison (default 5; --quick: 2)")
    parser.add_argument("--tiny", action="store_true", help="small models and one round: checks only that it runs")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="a folder with clones of other packs")
    options = parser.parse_args(arguments)
    known = suite.BENCHMARKS | suite.scripts()
    if options.list:
        for name, text in known.items():
            print(f"{name:16} {text}")
        return 0
    if options.write:
        return write()
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}. The benchmarks are: {', '.join(known)}")
    if options.repeat is not None and options.repeat < 1:
        parser.error(f"--repeat {options.repeat}: at least one round is needed")

    if options.tiny:  # before torch is loaded, and for every process started later
        os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    import torch

    settings = Settings(
        rounds=options.repeat or (1 if options.tiny else 2 if options.quick else 5),
        quick=options.quick,
        tiny=options.tiny,
        gpu=torch.cuda.is_available(),
        peers=None if options.peers is None else options.peers.expanduser().resolve(),
    )
    print(", ".join(f"{key} {value}" for key, value in machine().items()), flush=True)
    names = options.names or [name for name in known if settings.gpu or name not in suite.GPU_ONLY]
    failed = [name for name in names if not run(name, settings)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, settings: Settings) -> bool:
    """Runs one benchmark, prints its table and stores it. Returns False if it failed; the others still run."""
    print(f"\n== {name}", flush=True)
    if name not in suite.BENCHMARKS:
        return suite.run_script(name) == 0
    began, load = time.monotonic(), load_average()
    rows: list[Row] = []
    failure = None
    try:
        for row in suite.rows_of(name)(settings):
            rows.append(row)
    except Exception as error:
        failure = error
        traceback.print_exc()
        rows.append(not_there("the rest", f"{error!r:.200}"))
    print(f"{text_table(rows)}\n   {time.monotonic() - began:.0f} s", flush=True)
    file = results_file(settings)
    results.store(file, name, rows, said(settings), load)
    file.with_suffix(".md").write_text(results.markdown(results.load(file)), "utf-8")
    return failure is None


def results_file(settings: Settings) -> Path:
    return BENCH / ("results-tiny.json" if settings.tiny else "results.json")


def said(settings: Settings) -> str:
    size = "small models, not a measurement" if settings.tiny else "--quick" if settings.quick else "whole"
    return f"{size}, {settings.rounds} rounds, {'GPU' if settings.gpu else 'CPU'}"


def write() -> int:
    found = results.load(BENCH / "results.json")
    if not found:
        print(f"There are no results yet in {BENCH}: run dev.py bench first.", file=sys.stderr)
        return 1
    results.write_into(README, found)
    print(f"{README}: {', '.join(found)}")
    return 0
