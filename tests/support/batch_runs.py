"""Runs of the batch package on real hosts, with a node that does harm: see support/batch_pack."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from relay_batch.console import Console
from relay_batch.engines.engine import Engine
from relay_batch.engines.local import LocalEngine
from relay_batch.jobs import HostSetup
from relay_batch.jobs_of_rows import run_spec
from relay_batch.locks import Lock, Shard
from relay_batch.node_table import NodeTable
from relay_batch.plan import Request, make_plan
from relay_batch.progress import faults
from relay_batch.records import DONE, FAILED, find_record
from relay_batch.run import Driver, Limits
from relay_batch.store import LocalStore
from relay_host.comfyui import get_host
from relay_host.environment import host_python

PACK = Path(__file__).with_name("batch_pack")
QUICK = ("--cpu", "--disable-api-nodes", "--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK.name)
ROWS = 60
SIDE = 48
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def workflow() -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "start.png"}, "_meta": {"title": "Start"}},
        "2": {"class_type": "BatchNoise", "inputs": {"image": ["1", 0], "seed": 0, "seconds": 0.0, "harm": ""}},
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "made", "images": ["2", 0]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }


@dataclass(frozen=True)
class Place:
    """A folder with a host's base directory, a workflow, pictures and a table."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "base"

    @property
    def table(self) -> Path:
        return self.root / "rows.csv"

    def setup(self) -> HostSetup:
        host = get_host()
        arguments = (*QUICK, "--base-directory", str(self.base))
        work = self.root / "work"
        return HostSetup(str(host), str(host_python(host)), arguments, ONE_THREAD, str(work))

    def sets(self) -> list[str]:
        columns = {"2.seed": "seed", "2.harm": "harm", "2.seconds": "seconds", "Start.image": "picture"}
        return [f"{address}=@{self.table}:{column}" for address, column in columns.items()]

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with self.table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["seed", "harm", "seconds", "picture"])
            writer.writeheader()
            writer.writerows(rows)

    def command(self, out: Path, *more: str) -> list[str]:
        """`relay-batch run` on the table."""
        return [sys.executable, "-m", "relay_batch.cli", "run", *self.arguments(out), *more]

    def arguments(self, out: Path | str) -> list[str]:
        """What follows `relay-batch run`."""
        setup = self.setup()
        sets = [part for one in self.sets() for part in ("--set", one)]
        return [
            *(str(self.root / "workflow.json"), "--out", str(out), *sets),
            *("--comfyui", setup.comfyui, "--python", str(setup.python), "--work", str(setup.work)),
            f"--host-arguments={shlex.join(setup.arguments)}",
        ]

    def processes(self) -> list[psutil.Process]:
        """The hosts of this place that live."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if str(self.base) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def start_picture(self) -> np.ndarray:
        return pixels(self.root / "start.png")


def lay_out(root: Path) -> Place:
    place = Place(root)
    shutil.copytree(PACK, place.base / "custom_nodes" / PACK.name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("harm", "input", "models"):
        (place.base / folder).mkdir()
    ramp = np.linspace(0, 255, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3).astype(np.uint8)
    Image.fromarray(ramp).save(root / "start.png")
    shutil.copyfile(root / "start.png", place.base / "input" / "start.png")
    (root / "workflow.json").write_text(json.dumps(workflow()), "utf-8")
    return place


def row(seed: int, harm: str = "", seconds: float = 0.0, picture: str = "start.png") -> dict[str, Any]:
    return {"seed": seed, "harm": harm, "seconds": seconds, "picture": picture}


def run_table(
    place: Place,
    engine: Engine,
    out: Path,
    *,
    attempts: int = 4,
    row_timeout: float = 60.0,
    shard: Shard | None = None,
    most_failures: int = 100,
    after_plan: Callable[[], None] = lambda: None,
) -> Driver:
    """Runs the table on an engine that has been started."""
    store = LocalStore(out)
    nodes = NodeTable(engine.object_info())
    plan = make_plan(Request(place.root / "workflow.json", place.sets()), nodes, store)
    run = run_spec(plan, nodes, str(out), attempts, row_timeout)
    limits = Limits(shard or Shard(), most_failures)
    lock = Lock(store, limits.shard)
    try:
        after_plan()
        driver = Driver(plan, run, store, engine, lock, limits, Console())
        driver.go()
    finally:
        lock.release()
    return driver


@contextmanager
def local_engine(place: Place, workers: int, silent: float = 60.0) -> Iterator[LocalEngine]:
    engine = LocalEngine(silent=silent)
    engine.start(place.setup(), workers)
    try:
        yield engine
    finally:
        engine.stop()


def wait_until_idle(engine: LocalEngine, workers: int) -> None:
    """Lets what an ended driver has left in an engine come to its end."""
    until = time.monotonic() + 60
    while engine.wanted() < workers and time.monotonic() < until:
        engine.events(0.2)


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def painted(place: Place, seed: int) -> np.ndarray:
    """What a row must show, made without a host: 0..255."""
    import torch

    start = torch.from_numpy(place.start_picture().astype(np.float32) / 255.0)[None]
    noise = torch.rand(start.shape, generator=torch.Generator().manual_seed(seed))
    return np.asarray(np.clip(255.0 * ((start + noise) / 2)[0].numpy(), 0, 255).astype(np.uint8))


def assert_whole(place: Place, out: Path, seeds: Sequence[int], failed: Mapping[int, str] | None = None) -> None:
    """Every row has one record, the pictures are right, the hashes are good, nothing is there twice, and nothing half.

    Args:
        failed: {row: a part of its error}; all other rows are done.
    """
    store, failed = LocalStore(out), dict(failed or {})
    assert list(faults(store, len(seeds))) == []
    named = set()
    for index, seed in enumerate(seeds):
        done, bad = find_record(store, index, DONE), find_record(store, index, FAILED)
        if index in failed:
            assert done is None and bad is not None, f"row {index}"
            assert failed[index] in bad.error, bad.error
            continue
        assert bad is None and done is not None, f"row {index}: {bad}"
        (picture,) = done.pictures
        named.add(picture.name)
        assert np.array_equal(pixels(out / picture.name), painted(place, seed)), f"row {index}"
    files = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert {name for name in files if name.startswith("pictures/")} == named
    assert len(named) == len(seeds) - len(failed)
    assert not [name for name in files if name.endswith(".part") or name.startswith("attempts/")]
