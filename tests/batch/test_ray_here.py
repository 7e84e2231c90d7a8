"""Runs on a Ray of this machine alone, which starts and ends with the run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

from relay_host.batch import batch_command, batch_variables
from support.batch_runs import Place, assert_whole, lay_out, row
from support.ray_clusters import PATIENT

ROWS = 12
END = 500
pytestmark = pytest.mark.timeout(END + 60)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return lay_out(tmp_path)


def run(place: Place, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [*batch_command(), "run", *place.arguments(out), "--engine", "ray", *more]
    variables = batch_variables({**PATIENT, "HOME": str(place.root)})  # Ray writes its token there
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=END)


def rays() -> set[int]:
    """The process ids of all Rays on this machine."""
    return {
        process.pid for process in psutil.process_iter(["name"]) if process.info["name"] in ("raylet", "gcs_server")
    }


def test_rows_on_two_workers(place: Place, tmp_path: Path) -> None:
    place.write_rows([row(index, "kill_the_worker_once" if index == 3 else "") for index in range(ROWS)])
    before = rays()
    done = run(place, tmp_path / "out", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "its worker process has died" in done.stderr and "Row 4 runs again" in done.stderr
    assert_whole(place, tmp_path / "out", range(ROWS))
    assert place.processes() == []
    assert rays() <= before


def test_a_worker_that_can_not_start_ends_the_run_with_its_reason(place: Place, tmp_path: Path) -> None:
    place.write_rows([row(0)])
    done = run(place, tmp_path / "out", "--host-arguments=--no-such-argument")
    assert done.returncode == 2
    assert "No worker is left. ComfyUI did not start" in done.stderr
    assert "unrecognized arguments: --no-such-argument" in done.stderr
