"""The output folder: plans, records and pictures in it, and what status and verify say of it."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from relay_batch import cli
from relay_batch.errors import BadOutput, BadPicture
from relay_batch.pictures import Picture, checked_picture
from relay_batch.progress import faults, progress
from relay_batch.records import FAILED, outcomes, publish_done, publish_failed, read_record
from relay_batch.store import LocalStore
from support.batch_nodes import api_workflow, recorded

RED, BLUE = b"a red picture", b"a blue picture"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("nodes.json").write_text(json.dumps(recorded()["nodes"]), "utf-8")
    write_workflow(api_workflow())
    Path("prompts.csv").write_text("prompt\na\nb\nc\n", "utf-8")
    return tmp_path


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder / "out")


def write_workflow(workflow: dict[str, Any]) -> None:
    Path("workflow.json").write_text(json.dumps(workflow), "utf-8")


def plan(*more: str) -> int:
    sets = ["--set", "2.text=@prompts.csv:prompt", "--set", "5.seed=@seed:7+i"]
    return cli.main(["plan", "workflow.json", "--node-table", "nodes.json", "--out", "out", *sets, *more])


def files(folder: str = "out") -> set[str]:
    return {file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file()}


def test_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inputs", "workflow.json", "--node-table", "nodes.json"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    found = {line[0]: [part.strip() for part in line[1:] if part.strip()] for line in lines}
    assert found["Start.image"] == ["picture", "'example.png'"]
    assert found["What to paint.text"] == ["STRING", "'a cat'"]
    assert found["5.steps"] == ["INT 1 to 10000", "20"]
    assert found["6.scheduler"] == ["one of simple, sgm_uniform, karras, exponential, ...", "'normal'"]


def test_a_plan_and_its_status(capsys: pytest.CaptureFixture[str], store: LocalStore) -> None:
    assert plan() == 0
    assert files() == {"manifest.json"}
    publish_done(store, 0, [("3", RED, ".png")], {"2.text": "a"})
    publish_failed(store, 2, "out of memory", {"2.text": "c"})
    assert plan() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 rows, 1 done, 1 failed, 1 left. The plan is in out."
    assert cli.main(["status", "out"]) == 1
    assert capsys.readouterr().out.splitlines() == ["3 rows, 1 done, 1 failed, 1 left", "row 3 failed: out of memory"]
    assert cli.main(["verify", "out"]) == 0
    assert capsys.readouterr().out == "1 of 3 rows are done; 0 faults\n"


def test_a_plan_that_fails_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--set", "5.steps=0") == 2
    assert "Row 1, 5.steps: '0' is not between 1 and 10000" in capsys.readouterr().err
    assert not Path("out").exists()


def test_another_workflow_table_or_model_refuses_the_folder(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    model = folder / "comfyui" / "models" / "loras" / "example.png"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"1" * 9)
    host = ["--comfyui", str(folder / "comfyui")]
    assert plan(*host) == 0
    changed = api_workflow()
    changed["5"]["inputs"]["cfg"] = 3.0
    write_workflow(changed)
    assert plan(*host) == 2
    assert "the workflow has changed (5.cfg)" in capsys.readouterr().err
    write_workflow(api_workflow())
    Path("prompts.csv").write_text("prompt\na\nb\nx\n", "utf-8")
    assert plan(*host) == 2
    assert "the table's values have changed" in capsys.readouterr().err
    Path("prompts.csv").write_text("prompt\na\nb\n", "utf-8")
    assert plan(*host) == 2
    assert "the table had 3 rows and has 2" in capsys.readouterr().err
    Path("prompts.csv").write_text('"prompt"\r\n"a"\r\nb\r\nc\r\n', "utf-8")  # the same values
    assert plan(*host) == 0
    model.write_bytes(b"2" * 9)
    assert plan(*host) == 2
    assert "model files have changed (loras/example.png)" in capsys.readouterr().err


def test_a_folder_with_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "out"]) == 2
    assert "has no run: there is no manifest.json" in capsys.readouterr().err


def test_a_row_is_published_once(store: LocalStore) -> None:
    first = publish_done(store, 5, [("3", RED, ".png")], {})
    before = files()
    assert publish_done(store, 5, [("3", BLUE, ".png")], {}) == first
    assert files() == before
    assert publish_done(store, 5, [("3", RED, ".png")], {}) == first
    assert store.read(first.pictures[0].name) == RED


def test_a_retried_row_is_done(store: LocalStore) -> None:
    publish_failed(store, 1, "hung", {})
    assert read_record(store, 1, FAILED).error == "hung"
    publish_done(store, 1, [("3", RED, ".png")], {}, attempts=2)
    assert list(outcomes(store)) == [(1, "done")]
    publish_failed(store, 1, "a worker that comes late", {})
    assert (progress(store, 2).done, progress(store, 2).failed) == (1, 0)


def test_a_full_disk_leaves_nothing_half(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        publish_done(store, 0, [("3", RED, ".png")], {})
    assert files() == set()


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "a\\b", "c:a", ""])
def test_names_stay_inside_of_the_folder(store: LocalStore, name: str) -> None:
    with pytest.raises(BadOutput, match="not a name inside"):
        store.write_new(name, b"x")


def test_verify_finds_every_fault(store: LocalStore) -> None:
    records = [publish_done(store, row, [("3", bytes([row]) * 10, ".png")], {}) for row in range(5)]
    assert list(faults(store, 5)) == []
    paths = [store.path(record.pictures[0].name) for record in records]
    paths[0].unlink()
    paths[1].write_bytes(b"short")
    paths[2].write_bytes(b"0123456789")
    store.replace("records/0000/0000003.done.json", b"{}")
    store.write_new("pictures/0000/stray.png", b"x")
    found = [fault.split(": ", 1)[-1] for fault in faults(store, 5)]
    assert found[:3] == [
        "is missing",
        "has 5 bytes, and its record says 10",
        "its content is not what its record says",
    ]
    assert "is damaged" in " ".join(found[3:4])
    assert sorted(found[4:]) == ["no record names it", "no record names it"]  # row 3's, and the stray one


def test_a_record_of_no_row_is_refused(store: LocalStore) -> None:
    publish_failed(store, 9, "x", {})
    with pytest.raises(BadOutput, match=r"is of row 10, but the run has 9 rows"):
        progress(store, 9)


def pictures(folder: Path) -> Iterator[Path]:
    for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif"):
        file = folder / f"whole.{suffix}"
        Image.effect_noise((64, 48), 50).convert("RGB").save(file)
        yield file


def test_whole_pictures(folder: Path) -> None:
    sizes = {checked_picture(file) for file in pictures(folder)}
    assert sizes == {Picture(name, 64, 48) for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")}


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.99])
def test_truncated_pictures(folder: Path, part: float) -> None:
    for file in pictures(folder):
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(BadPicture):
            checked_picture(file)


def test_a_png_with_a_changed_byte(folder: Path) -> None:
    file = next(pictures(folder))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BadPicture, match="damaged or truncated"):
        checked_picture(file)


def test_files_that_are_no_pictures(folder: Path) -> None:
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    for name, message in (
        ("text.png", "is no picture"),
        ("empty.png", "is empty"),
        ("none.png", "There is no picture"),
    ):
        with pytest.raises(BadPicture, match=message):
            checked_picture(folder / name)
