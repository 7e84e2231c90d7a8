"""What a large table costs before and beside its rows: `relay-batch plan`, `status`, and the check before a run goes on.

    .venv/bin/python batch/benchmarks/many_rows.py                 a million rows
    .venv/bin/python batch/benchmarks/many_rows.py --rows 10000

No row runs: the records and pictures of half of the rows are made here, a few bytes each. Each command is a process of its own; its memory
is the peak of its resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "batch"), str(ROOT / "tests")]

PICTURE = b"p" * 64
RESUME = """
import sys, time
from relay_batch.locks import Shard
from relay_batch.progress import manifest_of
from relay_batch.resume import checked_progress
from relay_batch.store import open_store
store = open_store(sys.argv[1])
found = checked_progress(store, manifest_of(store).rows, Shard(), print)
print(f"{found.done} done, {found.left} left")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    print(f"| {rows:,} rows | seconds | MB | |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        folder = Path(name)
        lay_out(folder, rows)
        plan = ["plan", "workflow.json", "--node-table", "nodes.json", "--out", "out"]
        plan += ["--set", "2.text=@rows.csv:prompt", "--set", "5.seed=@seed:1+i"]
        show("plan", measured(folder, *plan))
        show("status, no row done", measured(folder, "status", "out"))
        began = time.monotonic()
        make_half(folder / "out", rows)
        print(f"(made {rows // 2:,} records and pictures in {time.monotonic() - began:.0f} s)", file=sys.stderr)
        show("status, half of the rows done", measured(folder, "status", "out"))
        show("check before it goes on, half of the rows done", measured(folder, "out", code=RESUME))
        show("plan again", measured(folder, *plan))


def lay_out(folder: Path, rows: int) -> None:
    from support.batch_nodes import api_workflow, recorded

    (folder / "nodes.json").write_text(json.dumps(recorded()["nodes"]), "utf-8")
    (folder / "workflow.json").write_text(json.dumps(api_workflow()), "utf-8")
    with (folder / "rows.csv").open("w", encoding="utf-8") as table:
        table.write("prompt\n")
        table.writelines(f'"a house by the sea, number {row}, oil on canvas"\n' for row in range(rows))


def make_half(out: Path, rows: int) -> None:
    """Writes what a run leaves, without waiting for the disk."""
    for name, data in _left(rows):
        file = out / name
        if not file.parent.is_dir():
            file.parent.mkdir(parents=True)
        file.write_bytes(data)


def _left(rows: int) -> Iterator[tuple[str, bytes]]:
    import hashlib
    from dataclasses import asdict

    from relay_batch.records import DONE, IN_A_FOLDER, PICTURES, Record, SavedPicture, key_of, record_name

    digest = hashlib.sha256(PICTURE).hexdigest()
    for row in range(0, rows, 2):
        picture = f"{PICTURES}/{row // IN_A_FOLDER:04}/{key_of(row)}-{digest[:12]}.png"
        saved = SavedPicture(picture, "3", len(PICTURE), digest)
        values = {"2.text": f"a house by the sea, number {row}, oil on canvas", "5.seed": row + 1}
        yield picture, PICTURE
        yield record_name(row, DONE), json.dumps(asdict(Record(row, DONE, (saved,), values))).encode()


def measured(folder: Path, *arguments: str, code: str = "") -> tuple[float, float, str]:
    """(seconds, peak of the resident set in MB, the last line that it prints)"""
    command = [sys.executable, *(["-c", code] if code else ["-m", "relay_batch.cli"]), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "batch")}
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.monotonic() - began, used.ru_maxrss / unit, said[-1] if said else ""


def show(name: str, result: tuple[float, float, str]) -> None:
    seconds, memory, said = result
    print(f"| {name} | {seconds:.1f} | {memory:.0f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
