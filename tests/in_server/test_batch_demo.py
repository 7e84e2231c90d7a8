"""What `dev.py batch-demo` runs: its addresses and values fit the example and the nodes of a real server."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image

from relay_batch import cli
from relay_batch.progress import manifest_of
from relay_batch.store import LocalStore
from relay_dev.batch_demo import PICTURES, PROMPTS, lay_out, rows_of, run_command
from relay_host.server import HostServer


def test_its_rows(server: HostServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_out(tmp_path)
    assert cli.main(["plan", *rows_of(tmp_path), "--node-table", server.url]) == 0, capsys.readouterr().err
    manifest = manifest_of(LocalStore(tmp_path / "out"))
    assert manifest.rows == len(PROMPTS) * len(PICTURES) == 12
    assert {Image.open(file).size for file in (tmp_path / "pictures").iterdir()} == {(512, 512)}


def test_its_command(server: HostServer, tmp_path: Path) -> None:
    wanted = cli.parser().parse_args(run_command(tmp_path, server.host, server.base, 2))
    assert (wanted.workers, wanted.product, wanted.comfyui) == (2, True, server.host)
    assert shlex.split(wanted.host_arguments)[-2:] == ["--base-directory", str(server.base)]


def test_a_demo_that_came_to_its_end_begins_again(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "out" / "records").mkdir(parents=True)
    lay_out(tmp_path)
    assert (tmp_path / "out" / "records").is_dir()  # it was stopped, and goes on
    (tmp_path / "out" / "report.html").write_text("")
    lay_out(tmp_path)
    assert not (tmp_path / "out").exists()
