"""Runs on a Ray cluster whose machines fail: network namespaces stand for machines, and every row sleeps."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.batch_runs import ROWS, Place, assert_whole, lay_out, row
from support.machines import Machines
from support.ray_clusters import RayCluster
from support.s3_server import BUCKET

END = 300
"""Seconds that a run may take: the machine may be busy with other tests."""
pytestmark = pytest.mark.timeout(3 * END)
SECONDS = 0.3
"""A row's work."""
RAY_NOTICES = 65
"""Seconds after which Ray itself notices that a machine is gone."""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster without room for workers."""
    with tempfile.TemporaryDirectory(prefix="ray-") as name, Machines(Path(name) / "own") as machines:
        made = RayCluster(machines, tmp_path_factory.mktemp("logs"), Path(name) / "own")
        made.start_head()
        yield made


@pytest.fixture
def cluster(head: RayCluster, request: pytest.FixtureRequest) -> Iterator[RayCluster]:
    """Each test has machines of its own join, with a resource of their own: Ray takes those of the test before for alive for a while."""
    head.resource = request.node.name
    yield head
    head.end_all_but_the_head()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Rows that sleep."""
    place = lay_out(tmp_path)
    place.write_rows([row(index, seconds=SECONDS) for index in range(ROWS)])
    return place


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(cluster: RayCluster, place: Place, out: Path | str, name: str, *more: str) -> subprocess.Popen[bytes]:
    """`relay-batch run` on the head, which starts up to two workers."""
    return cluster.run(*place.arguments(out), "--workers", "2", *more, name=name)


def rows_done(out: Path) -> int:
    return len(list(out.glob("records/*/*.done.json")))


def ended(cluster: RayCluster, driver: subprocess.Popen[bytes], name: str = "driver") -> str:
    """What the driver has said. Fails if it ends otherwise than well."""
    code = driver.wait(END)
    said = cluster.log(name).read_text("utf-8")
    assert code == 0, said
    return said


def workers(out: Path) -> set[str]:
    """The machines that have run rows: each worker leaves its log."""
    return {re.sub(r"-\d+\.log$", "", file.name) for file in (out / "logs").glob("*.log")}


def test_a_machine_is_killed(cluster: RayCluster, place: Place, out: Path) -> None:
    for name in ("one", "two"):
        cluster.join(name)
    driver = run(cluster, place, out, "killed")
    cluster.wait_for(lambda: rows_done(out) >= 10, "the tenth row")
    cluster.machines.kill("one")
    said = ended(cluster, driver, "killed")
    assert "runs again" in said
    assert_whole(place, out, range(ROWS))


def test_a_partition_for_ever(cluster: RayCluster, place: Place, out: Path) -> None:
    """The machine that is cut off lives and finishes its row, which another has run too: one record counts."""
    for name in ("one", "two"):
        cluster.join(name)
    driver = run(cluster, place, out, "cut")
    cluster.wait_for(lambda: rows_done(out) >= 10, "the tenth row")
    cluster.machines.cut("one")
    answer = "its machine did not answer for 20 s"
    cluster.wait_for(lambda: answer in cluster.log("cut").read_text("utf-8"), "the loss of the machine", RAY_NOTICES)
    ended(cluster, driver, "cut")
    assert_whole(place, out, range(ROWS))


def test_a_machine_that_joins(cluster: RayCluster, place: Place, out: Path) -> None:
    """Its rows are done while the first machine stands still. Prometheus is told of them."""
    place.write_rows([row(index, "wait_for_the_test" if index == 5 else "") for index in range(ROWS)])
    driver = run(cluster, place, out, "joins")
    cluster.join("one")
    cluster.wait_for(lambda: rows_done(out) == 5, "the fifth row")
    cluster.join("two")
    cluster.wait_for(lambda: rows_done(out) > 30, "what the second machine does")
    (place.base / "harm" / "go").touch()
    cluster.wait_for(lambda: 'outcome="done"' in cluster.metrics(), "a count of rows in the metrics")
    ended(cluster, driver, "joins")
    assert_whole(place, out, range(ROWS))
    assert workers(out) == {cluster.machines.address(name).replace(".", "-") for name in ("one", "two")}


def test_the_driver_is_killed(cluster: RayCluster, place: Place, out: Path) -> None:
    for name in ("one", "two"):
        cluster.join(name)
    driver = run(cluster, place, out, "first")
    cluster.wait_for(lambda: rows_done(out) >= 10, "the tenth row")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert rows_done(out) < ROWS
    cluster.wait_for(lambda: hosts(cluster, "one", "two") == [], "the end of the driver's ComfyUIs", 30)
    ended(cluster, run(cluster, place, out, "second"), "second")
    assert_whole(place, out, range(ROWS))


def hosts(cluster: RayCluster, *names: str) -> list[int]:
    """The process ids of the ComfyUIs on some machines."""
    found = []
    for pid in [pid for name in names for pid in cluster.machines.processes(name)]:
        with suppress(psutil.Error):  # it has just ended
            if "--base-directory" in psutil.Process(pid).cmdline():
                found.append(pid)
    return found


def test_a_worker_that_can_not_start_ends_the_run_with_its_reason(cluster: RayCluster, place: Place, out: Path) -> None:
    cluster.join("one")
    driver = run(cluster, place, out, "cannot", "--host-arguments=--no-such-argument")
    assert driver.wait(END) == 2
    said = cluster.log("cannot").read_text("utf-8")
    assert "No worker is left. ComfyUI did not start" in said
    assert "unrecognized arguments: --no-such-argument" in said


def test_a_machine_is_killed_and_the_rows_are_in_s3(cluster: RayCluster, place: Place) -> None:
    cluster.start_s3()
    out = f"s3://{BUCKET}/of-machines"
    for name in ("one", "two"):
        cluster.join(name)
    driver = run(cluster, place, out, "s3")
    listed = f"from relay_batch.store import open_store; print(len(list(open_store('{out}').names('records'))))"
    cluster.wait_for(lambda: int(cluster.on_head(listed).strip() or 0) >= 10, "the tenth row")
    cluster.machines.kill("one")
    assert "runs again" in ended(cluster, driver, "s3")
    verified = f"from relay_batch.cli import main; main(['verify', '{out}'])"
    assert cluster.on_head(verified) == f"{ROWS} of {ROWS} rows are done; 0 faults\n"
    assert cluster.on_head(listed.replace("records", "pictures")) == f"{ROWS}\n"
