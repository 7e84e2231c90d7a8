"""What `relay-batch run` costs beside the ComfyUIs that it runs, with a node that sleeps in the place of a model.

    .venv/bin/python batch/benchmarks/beside_the_host.py

Rows a second of two workers against two bare servers whose queues were filled beforehand; what a row costs beside the server's own queue, with
a node that does not sleep; the memory of the driver, the workers and the hosts over 2,000 rows; the driver's own cost with an engine
that does nothing, over 10,000 rows. The first rows, up to the number of workers, are not counted.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "batch"), str(ROOT / "tests"), str(ROOT / "devtools")]

ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", type=float, default=1.0, help="run only this part of the rows: 0.1 to see that it works"
    )
    part = parser.parse_args().part
    print("| | measured | target |\n|---|---|---|", flush=True)
    speed(round(120 * part), workers=2, seconds=0.5)
    overhead(round(400 * part))
    memory(round(2000 * part))
    driver_alone(round(10_000 * part))


def speed(rows: int, workers: int, seconds: float) -> None:
    ours, bare = [], []
    for _ in range(ROUNDS):
        bare.append(bare_rate(rows, workers, seconds))
        ours.append(our_rate(rows, workers, seconds))
    ratio = statistics.median(one / other for one, other in zip(ours, bare))
    rates = f"{statistics.median(ours):.2f} of {statistics.median(bare):.2f} rows/s"
    show(
        f"{workers} workers / {workers} bare servers, rows that sleep {seconds} s", f"{ratio:.3f} ({rates})", ">= 0.95"
    )


def overhead(rows: int) -> None:
    pairs = [(our_rate(rows, 1, 0.0), bare_rate(rows, 1, 0.0)) for _ in range(ROUNDS)]
    more = statistics.median(1000 / ours - 1000 / bare for ours, bare in pairs)
    own = statistics.median(1000 / bare for _, bare in pairs)
    show("a row beside the server's own queue", f"{more:.1f} ms more than its {own:.1f} ms", "<= 30 ms")


def our_rate(rows: int, workers: int, seconds: float) -> float:
    """Rows a second of `relay-batch run`, by the times of its records."""
    from support.batch_runs import lay_out, row

    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        place, out = lay_out(Path(name)), Path(name) / "out"
        place.write_rows([row(index, seconds=seconds) for index in range(rows)])
        run(place.command(out, "--workers", str(workers)), Path(name) / "log").wait()
        return rate([file.stat().st_mtime for file in out.glob("records/*/*.done.json")], rows, workers)


def rate(ends: Sequence[float], rows: int, workers: int) -> float:
    if len(ends) != rows:
        raise RuntimeError(f"{len(ends)} of {rows} rows were done")
    ends = sorted(ends)
    return (rows - workers) / (ends[-1] - ends[workers - 1])


def bare_rate(rows: int, servers: int, seconds: float) -> float:
    """The same of servers that get all of their rows at once."""
    from relay_host.server import HostServer
    from support.batch_runs import PACK, lay_out, workflow

    with ExitStack() as closing:
        place = lay_out(Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-"))))
        running = []
        for _ in range(servers):
            server = closing.enter_context(HostServer(pack=None, other_packs={PACK.name: PACK}))
            (server.folders["input"] / "start.png").write_bytes((place.root / "start.png").read_bytes())
            running.append(server)
        for index in range(rows):
            prompt = workflow()
            prompt["2"]["inputs"] |= {"seed": index, "seconds": seconds}
            prompt["3"]["inputs"]["filename_prefix"] = f"row-{index}"
            running[index % servers].post("/prompt", {"prompt": prompt})
        ends: list[float] = []
        while len(ends) < rows:
            time.sleep(1)
            ends = [end for server in running for end in _ends(server.get("/history"))]
    return rate(ends, rows, servers)


def _ends(history: Mapping[str, Any]) -> Iterator[float]:
    for entry in history.values():
        messages = dict(entry["status"]["messages"])
        yield messages["execution_success"]["timestamp"] / 1000


def run(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "batch")}
    with log.open("wb") as written:
        return subprocess.Popen(command, env=environment, stdout=written, stderr=written)


def memory(rows: int) -> None:
    """The resident sets at a tenth of the rows and at the end."""
    from support.batch_runs import lay_out, row

    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        place, out = lay_out(Path(name)), Path(name) / "out"
        place.write_rows([row(index) for index in range(rows)])
        driver = run(place.command(out, "--workers", "2"), Path(name) / "log")
        early: dict[str, float] = {}
        late: dict[str, float] = {}
        while driver.poll() is None:
            done = len(list(out.glob("records/*/*.done.json")))
            if done >= rows / 10 and not early:
                early = resident(driver.pid)
            if rows * 0.9 <= done < rows:
                late = resident(driver.pid)
            time.sleep(0.5)
    for kind in early:
        text = f"{early[kind]:.0f} MB at a tenth, {late.get(kind, 0):.0f} MB at the end"
        show(f"{kind}, {rows:,} rows", text, "flat")


def resident(pid: int) -> dict[str, float]:
    """{kind of process: the mean of their resident sets in MB}"""
    sizes: dict[str, list[int]] = {}
    driver = psutil.Process(pid)
    for process in [driver, *driver.children(recursive=True)]:
        try:
            command = " ".join(process.cmdline())
            kind = "a host" if "launch_host" in command else "a worker" if "spawn_main" in command else "the driver"
            if process.pid == pid or kind != "the driver":
                sizes.setdefault(kind, []).append(process.memory_info().rss)
        except psutil.Error:
            continue
    return {kind: statistics.mean(found) / 2**20 for kind, found in sizes.items()}


class IdleEngine:
    """Takes a job and says at once that it is done; its record is written without waiting for the disk."""

    def __init__(self, out: Path):
        self.out, self.seconds = out, 0.0
        self.done: list[Any] = []

    def begin(self, run: Any) -> None: ...

    def wanted(self) -> int:
        return 8 - len(self.done)

    def submit(self, job: Any) -> None:
        from relay_batch.engines.engine import Done

        began = time.process_time()
        self._write(job)
        self.done.append(Done("nobody", job.index, 1, 0.5))
        self.seconds += time.process_time() - began

    def events(self, timeout: float) -> list[Any]:
        found, self.done = self.done, []
        return found

    def workers(self) -> int:
        return 8

    def _write(self, job: Any) -> None:
        import json
        from dataclasses import asdict

        from relay_batch.records import DONE, Record, SavedPicture, record_name

        picture = SavedPicture(f"pictures/{job.index // 1000:04}/{job.index:07}-x.png", "3", 1, "")
        record = json.dumps(asdict(Record(job.index, DONE, (picture,), job.values)))
        for name, text in ((picture.name, "x"), (record_name(job.index, DONE), record)):
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            (self.out / name).write_text(text)


def driver_alone(rows: int) -> None:
    """In a process of its own, so that the memory is the driver's."""
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        code = f"import sys; sys.path[:] = {sys.path!r}\nfrom beside_the_host import drive\ndrive({name!r}, {rows})"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    show(f"the driver, {rows:,} rows", f"{float(said[0]):.2f} ms a row, {float(said[1]):.0f} MB", "<= 2 ms, <= 500 MB")


def drive(folder: str, rows: int) -> None:
    """Prints the driver's processor time a row in ms, and its peak in MB."""
    import json

    from relay_batch.console import Console
    from relay_batch.jobs_of_rows import run_spec
    from relay_batch.locks import Lock, Shard
    from relay_batch.plan import Request, make_plan
    from relay_batch.run import Driver, Limits
    from relay_batch.store import LocalStore
    from support.batch_nodes import api_workflow, recorded_nodes

    place, out = Path(folder), Path(folder) / "out"
    (place / "workflow.json").write_text(json.dumps(api_workflow()), "utf-8")
    (place / "rows.csv").write_text("prompt\n" + "".join(f"house number {row}\n" for row in range(rows)), "utf-8")
    store, nodes = LocalStore(out), recorded_nodes()
    sets = [f"2.text=@{place / 'rows.csv'}:prompt", "5.seed=@seed:1+i"]
    began = time.process_time()
    plan = make_plan(Request(place / "workflow.json", sets), nodes, store)
    engine: Any = IdleEngine(out)
    lock = Lock(store, Shard())
    run = run_spec(plan, nodes, str(out), 4, 60.0)
    with (place / "log").open("w") as log:
        Driver(plan, run, store, engine, lock, Limits(), Console(log)).go()
    lock.release()
    spent = time.process_time() - began - engine.seconds
    print(1000 * spent / rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def show(name: str, measured: str, target: str) -> None:
    print(f"| {name} | {measured} | {target} |", flush=True)


if __name__ == "__main__":
    main()
