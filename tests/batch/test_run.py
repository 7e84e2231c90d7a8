"""Runs on real ComfyUIs to which harm is done: after it every row has one record, with its own pixels, and nothing is half or twice."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

import relay_batch
from relay_batch.engines.engine import NoWorkers
from relay_batch.engines.local import LocalEngine
from relay_batch.errors import BadOutput
from relay_batch.locks import Shard
from relay_batch.progress import faults, progress
from relay_batch.records import DONE, outcomes, read_record
from relay_batch.run import StorageFailed, TooManyFailures
from relay_batch.store import LocalStore
from relay_host.server import HostServer
from support.batch_runs import (
    PACK,
    ROWS,
    Place,
    assert_whole,
    lay_out,
    local_engine,
    painted,
    pixels,
    row,
    run_table,
    wait_until_idle,
    workflow,
)

WORKERS = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return lay_out(tmp_path_factory.mktemp("batch"))


@pytest.fixture(scope="module")
def engine(place: Place) -> Iterator[LocalEngine]:
    """Two workers, which stay warm over the runs of this file."""
    with local_engine(place, WORKERS, silent=15.0) as running:
        yield running


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_bad_day(place: Place, engine: LocalEngine, out: Path) -> None:
    """Bad rows, bad pictures, identical rows, a ComfyUI that is killed once, and a poisonous row that kills it each time."""
    data = (place.root / "start.png").read_bytes()
    (place.root / "cut.png").write_bytes(data[: len(data) // 2])
    (place.root / "text.png").write_text("not a picture")
    (place.root / "gone.png").write_bytes(data)
    rows = [row(index) for index in range(ROWS)]
    rows[4] = row(4, "kill_the_host_once")
    rows[10] = rows[11] = rows[12] = row(9)  # like the one before them
    rows[20] = row(20, "fail")
    rows[21] = row(21, "kill_the_host")
    rows[30] = row(30, picture="cut.png")
    rows[31] = row(31, picture="text.png")
    rows[32] = row(32, picture="gone.png")
    place.write_rows(rows)
    gone = (place.root / "gone.png").unlink
    driver = run_table(place, engine, out, attempts=2, after_plan=gone)
    failed = {
        20: "Node 2 (BatchNoise): ValueError: the seed 20 is not liked",
        21: "begun 2 times, and ended its worker each time (ComfyUI ended by itself (SIGKILL))",
        30: f"{place.root / 'cut.png'} is damaged or truncated",
        31: f"{place.root / 'text.png'} is no picture",
        32: f"There is no picture {place.root / 'gone.png'}",
    }
    assert_whole(place, out, [int(one["seed"]) for one in rows], failed)
    assert driver.meter.retried == 3  # row 4 once, row 21 twice
    assert [read_record(LocalStore(out), index, DONE).attempts for index in (4, 5)] == [2, 1]
    assert list((place.root / "work").glob("relay-batch-*/temp/*")) == []  # the preview of each row is removed
    logs = {log.stem.rpartition("-")[2]: log.read_text("utf-8", "replace") for log in (out / "logs").iterdir()}
    assert logs.keys() <= {"1", "2"} and logs and all("got prompt" in text for text in logs.values())


def test_workers_that_are_killed_and_stand_still(place: Place, engine: LocalEngine, out: Path) -> None:
    rows = [row(index) for index in range(12)]
    rows[2] = row(2, "stop_the_worker_once")
    rows[5] = row(5, "kill_the_worker_once")
    place.write_rows(rows)
    driver = run_table(place, engine, out)
    assert_whole(place, out, range(12))
    assert driver.meter.retried == 2
    assert [read_record(LocalStore(out), index, DONE).attempts for index in (2, 4, 5)] == [2, 1, 2]


def test_hung_rows(place: Place, engine: LocalEngine, out: Path) -> None:
    """One is interrupted; for the other, its ComfyUI is ended. Both workers go on."""
    place.write_rows([row(0, "hang"), row(1, "hang_whatever_is_asked")])
    run_table(place, engine, out, row_timeout=2.0)
    reason = "not done within 2 s (--row-timeout)"
    assert_whole(place, out, range(2), {0: reason, 1: reason})
    place.write_rows([row(index) for index in range(4)])
    run_table(place, engine, out.with_name("next"))
    assert_whole(place, out.with_name("next"), range(4))


def test_the_plain_server_paints_the_same(place: Place, tmp_path: Path) -> None:
    """What the other tests hold the rows' pixels against is what a server without the batch package paints."""
    with HostServer(base=tmp_path / "base", pack=None, other_packs={PACK.name: PACK}) as server:
        (server.folders["input"] / "start.png").write_bytes((place.root / "start.png").read_bytes())
        for seed in (0, 9, 59):
            prompt = workflow()
            prompt["2"]["inputs"]["seed"] = seed
            (picture,) = server.run(prompt).raise_for_error().images("3")
            assert np.array_equal(pixels(picture), painted(place, seed))


def test_what_is_damaged_runs_again(place: Place, engine: LocalEngine, out: Path) -> None:
    place.write_rows([row(index) for index in range(8)])
    run_table(place, engine, out)
    store = LocalStore(out)
    pictures = [store.path(read_record(store, index, DONE).pictures[0].name) for index in range(8)]
    pictures[1].unlink()
    pictures[2].write_bytes(pictures[2].read_bytes()[:-1])
    store.replace("records/0000/0000003.done.json", b"{}")
    store.path("records/0000/0000004.done.json").unlink()
    store.write_new("pictures/0000/0000005-stray.png", b"x")
    half = store.path("pictures/0000/.half.part")
    half.write_bytes(b"x")
    os.utime(half, (0, 0))
    driver = run_table(place, engine, out)
    assert_whole(place, out, range(8))
    assert driver.meter.pictures == 4


def test_shards_share_a_folder(place: Place, engine: LocalEngine, out: Path) -> None:
    place.write_rows([row(index) for index in range(9)])
    first = run_table(place, engine, out, shard=Shard(2, 3))
    assert (first.meter.rows, first.meter.done) == (3, 3)
    assert [index for index, _ in sorted(outcomes(LocalStore(out)))] == [1, 4, 7]
    run_table(place, engine, out, shard=Shard(1, 3))
    run_table(place, engine, out, shard=Shard(3, 3))
    assert_whole(place, out, range(9))


def test_another_workflow_refuses_the_folder(place: Place, engine: LocalEngine, out: Path) -> None:
    place.write_rows([row(0)])
    run_table(place, engine, out)
    place.write_rows([row(1)])
    with pytest.raises(BadOutput, match="the table's values have changed"):
        run_table(place, engine, out)


def can_mount() -> bool:
    """Whether this process can mount a disk of its own: as root, where a container doesn't forbid it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
        return tried.returncode == 0 and subprocess.run(["umount", folder]).returncode == 0


CAN_MOUNT = can_mount()
if not CAN_MOUNT:
    warnings.warn("The test of a full disk is left out: it needs Linux, root, and the right to mount.", stacklevel=1)

if CAN_MOUNT:

    def test_the_disk_is_full(place: Place, engine: LocalEngine, tmp_path: Path) -> None:
        """The run stops with what is done kept; it goes on when there is room."""
        place.write_rows([row(index) for index in range(ROWS)])
        disk = tmp_path / "disk"
        disk.mkdir()
        with small_disk(disk, "600k") as grow:
            with pytest.raises(StorageFailed, match=r"No space left on device.*What is done is kept"):
                run_table(place, engine, disk / "out")
            wait_until_idle(engine, WORKERS)
            kept = progress(LocalStore(disk / "out"), ROWS)
            assert 5 < kept.done < ROWS and kept.failed == 0
            assert [
                fault for fault in faults(LocalStore(disk / "out"), ROWS) if "no record names it" not in fault
            ] == []
            grow("8m")
            run_table(place, engine, disk / "out")
            assert_whole(place, disk / "out", range(ROWS))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A disk of its own at `folder`, and what gives it another size."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_driver_that_is_stopped_and_one_that_is_killed(place: Place, out: Path) -> None:
    """A stop, then a kill, then to the end with one worker. Each time all ComfyUIs end, with the programs that their nodes started."""
    rows = [row(index, seconds=0.1) for index in range(ROWS)]
    rows[0] = row(0, "start_a_program", seconds=0.1)
    place.write_rows(rows)
    before = len(place.processes())
    assert stopped(place, out, signal.SIGTERM, rows_done=5) == 130
    assert len(place.processes()) == before
    assert list((out / "attempts").rglob("*.json")) == list((out / "locks").iterdir()) == []
    assert stopped(place, out, signal.SIGKILL, rows_done=25) == -signal.SIGKILL
    until = time.monotonic() + 20
    while len(place.processes()) > before and time.monotonic() < until:
        time.sleep(0.2)
    assert len(place.processes()) == before
    done = subprocess.run(place.command(out), env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_whole(place, out, range(ROWS))
    assert "60 of 60 rows done" in done.stderr and (out / "report.html").is_file()
    programs = [int(file.name.split("-")[1]) for file in (place.base / "harm").glob("program-*")]
    assert programs and not any(psutil.pid_exists(pid) for pid in programs)


def stopped(place: Place, out: Path, how: signal.Signals, rows_done: int) -> int:
    """The exit code of a driver with two workers that gets a signal as soon as so many rows are done. Its workers get SIGTERM too, as from Slurm."""
    with (out.parent / f"{how.name}.log").open("wb") as log:
        driver = subprocess.Popen(
            place.command(out, "--workers", "2"), env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    until = time.monotonic() + 300
    while len(list(out.glob("records/*/*"))) < rows_done and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    if how == signal.SIGTERM:
        os.killpg(driver.pid, how)
    else:
        driver.send_signal(how)
    return driver.wait(60)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(relay_batch.__file__).parents[1])}


def test_a_run_in_which_everything_fails_stops(place: Place, engine: LocalEngine, out: Path) -> None:
    place.write_rows([row(index, "fail") for index in range(30)])
    with pytest.raises(TooManyFailures, match="5 rows have failed one after the other, the last with: Node 2"):
        run_table(place, engine, out, most_failures=5)
    wait_until_idle(engine, WORKERS)
    assert 5 <= progress(LocalStore(out), 30).failed <= 5 + WORKERS


def test_a_comfyui_that_can_not_start(place: Place) -> None:
    setup = place.setup()
    engine = LocalEngine()
    engine.start(dataclasses.replace(setup, arguments=("--no-such-argument",)), 2)
    try:
        with pytest.raises(
            NoWorkers, match=r"(?s)ComfyUI did not start.*exit code 2.*unrecognized arguments: --no-such"
        ):
            engine.object_info()
    finally:
        engine.stop()
