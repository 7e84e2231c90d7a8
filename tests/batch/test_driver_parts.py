"""The parts of a run that need no ComfyUI: locks, attempts, the living line, metrics, shards, GPUs and the contact sheet."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import re
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from PIL import Image

from relay_batch import cli, host, locks, meter
from relay_batch.attempts import begin_attempt, forget_attempts, note_reason, read_attempts, take_back_attempt
from relay_batch.cli_run import read_shard
from relay_batch.console import ERASE, Console
from relay_batch.devices import of_worker, visible_devices
from relay_batch.errors import BadOutput, BadPicture, RowFault
from relay_batch.jobs import InputPicture, Job
from relay_batch.locks import Lock, Shard, drivers
from relay_batch.manifest import Manifest, write_manifest
from relay_batch.meter import Meter, Metrics
from relay_batch.outputs import raise_for_error, read_outputs
from relay_batch.progress import progress
from relay_batch.records import publish_done, publish_failed
from relay_batch.report import write_report
from relay_batch.sending import lay_down
from relay_batch.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def test_a_second_driver_is_refused(store: LocalStore) -> None:
    first = Lock(store, Shard())
    with pytest.raises(BadOutput, match=r"Another driver runs in this output folder: process \d+ on"):
        Lock(store, Shard())
    first.release()
    assert drivers(store) == []
    Lock(store, Shard()).release()


@pytest.mark.parametrize(
    ("held", "wanted", "both"),
    [
        (Shard(1, 2), Shard(2, 2), True),
        (Shard(1, 2), Shard(1, 2), False),
        (Shard(1, 2), Shard(1, 1), False),
        (Shard(1, 1), Shard(2, 2), False),
        (Shard(1, 2), Shard(2, 3), False),
    ],
)
def test_shards_with_rows_in_common(store: LocalStore, held: Shard, wanted: Shard, both: bool) -> None:
    lock = Lock(store, held)
    if both:
        Lock(store, wanted).release()
    else:
        with pytest.raises(BadOutput, match="Another driver runs"):
            Lock(store, wanted)
    lock.release()


def test_the_lock_of_a_driver_that_was_killed(store: LocalStore) -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\nfrom pathlib import Path\nfrom relay_batch.locks import Lock, Shard\n"
    )
    code += f"from relay_batch.store import LocalStore\nimport os\nLock(LocalStore(Path({str(store.root)!r})), Shard())\nos._exit(9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert [name for name, _ in drivers(store)] == ["1-of-1"]
    Lock(store, Shard()).release()


def other_machine(store: LocalStore) -> locks.Owner:
    owner = dataclasses.replace(locks._this_process(), machine="elsewhere")
    store.replace("locks/1-of-1.json", json.dumps(dataclasses.asdict(owner)).encode())
    return owner


def test_the_lock_of_another_machine_that_is_gone(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "STALE", 1.5)
    other_machine(store)
    said: list[str] = []
    Lock(store, Shard(), said.append).release()
    assert re.fullmatch(r"There is a lock of process \d+ on elsewhere: waiting 2 s .*", said[0])


def test_the_lock_of_another_machine_that_lives(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = other_machine(store)

    def beats(seconds: float) -> None:
        beaten = dataclasses.replace(owner, beats=1)
        store.replace("locks/1-of-1.json", json.dumps(dataclasses.asdict(beaten)).encode())

    monkeypatch.setattr("relay_batch.locks.time.sleep", beats)
    with pytest.raises(BadOutput, match="on elsewhere"):
        Lock(store, Shard())


def test_a_lock_that_was_taken_over(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.05)
    lock = Lock(store, Shard())
    began = drivers(store)[0][1]
    time.sleep(0.3)
    lock.check()
    assert drivers(store)[0][1].beats > began.beats
    other_machine(store)
    time.sleep(0.3)
    with pytest.raises(BadOutput, match="took over"):
        lock.check()
    lock.release()
    assert [owner.machine for _, owner in drivers(store)] == ["elsewhere"]  # another's lock stays


def test_attempts(store: LocalStore) -> None:
    assert read_attempts(store, 1234).count == 0
    assert begin_attempt(store, 1234).count == 1
    note_reason(store, 1234, "out of memory")
    again = begin_attempt(store, 1234)
    assert (again.count, list(again.reasons)) == (2, ["out of memory"])
    take_back_attempt(store, 1234)
    assert read_attempts(store, 1234).count == 1
    take_back_attempt(store, 1234)
    assert not list(store.names("attempts"))
    forget_attempts(store, 1234)  # nothing there


@pytest.mark.parametrize(("text", "shard"), [("3/8", Shard(3, 8)), ("1/1", Shard()), ("8/8", Shard(8, 8))])
def test_shards(text: str, shard: Shard) -> None:
    assert read_shard(text) == shard


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "a/b", "1/0", "-1/8"])
def test_no_shards(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no shard"):
        read_shard(text)


def test_every_row_is_in_one_shard() -> None:
    for index in range(20):
        assert sum(Shard(number, 7).has(index) for number in range(1, 8)) == 1


def test_workers_share_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5")
    assert visible_devices() == ["2", "GPU-5"]
    assert [of_worker(["2", "GPU-5"], number)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["2", "GPU-5", "2"]
    assert of_worker([], 1) == {}


def test_the_speed_and_the_time_left(monkeypatch: pytest.MonkeyPatch, store: LocalStore) -> None:
    now = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    found = Meter(rows=100, done=10, workers=2, _began=now[0])
    for _ in range(20):
        now[0] += 0.5
        found.ended(2)
    found.ended(0, failed=True)
    assert found.line() == "30 of 100 rows done, 1 failed, 4.00 pictures/s, 0:00:33 left, 2 workers"
    store.write_new("manifest.json", b"")
    metrics = Metrics(store, "metrics.jsonl")
    metrics.write(found)
    metrics.write(found)  # too early
    metrics.write(found, last=True)
    lines = [json.loads(line) for line in store.read("metrics.jsonl").splitlines()]
    assert len(lines) == 2
    assert {key: lines[0][key] for key in ("done", "failed", "left", "pictures", "workers", "pictures_per_second")} == {
        **{"done": 30, "failed": 1, "left": 69},
        **{"pictures": 40, "workers": 2, "pictures_per_second": 4.0},
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_lives_in_a_terminal_and_not_in_a_log() -> None:
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        console = Console(stream)
        console.live("1 of 3")
        console.say("Row 2 failed")
        console.live("2 of 3")  # too early
        console.end("3 of 3")
    assert terminal.getvalue() == f"{ERASE}1 of 3{ERASE}Row 2 failed\n1 of 3{ERASE}3 of 3\n"
    assert log.getvalue() == "1 of 3\nRow 2 failed\n3 of 3\n"


def test_the_contact_sheet(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_batch.report.ROWS_A_PAGE", 2)
    publish_done(store, 0, [("3", b"a", ".png")], {"Say.text": "<script>alert(1)</script>"})
    publish_done(store, 1, [("3", b"b", ".png"), ("4", b"c", ".mp4")], {"Start.image": {"picture": "x.png", "size": 3}})
    publish_failed(store, 2, 'a "bad" row', {"Say.text": "c"})
    manifest = Manifest({}, ["Say.text=@a.csv:text"], False, 4, "", None, "2026-03-09T14:05:07+00:00")
    assert write_report(store, manifest, progress(store, 4)) == "report.html"
    first, second = (store.read(name).decode() for name in ("report.html", "report-2.html"))
    assert "4 rows: 2 done, 1 failed, 1 left" in first
    assert first.index("Row 3") < first.index("Row 1") and "a &quot;bad&quot; row" in first
    assert "<script" not in first and "&lt;script&gt;" in first
    assert "Row 2" not in first and "Row 2" in second and "x.png" in second
    sources = re.findall(r'(?:src|href)="(pictures/[^"]+)"', first + second)
    assert len(sources) == 5 and all(store.path(name).is_file() for name in sources)
    assert '<a href="report-2.html">2</a>' in first


def command(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = cli.main(arguments)
    return code, capsys.readouterr().out


def test_retry_report_and_the_status_of_a_driver(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(store, Manifest({}, [], False, 3, "", None, "2026-03-09T14:05:07+00:00"))
    publish_done(store, 0, [("3", b"a", ".png")], {})
    publish_failed(store, 2, "bad", {})
    begin_attempt(store, 2)
    lock = Lock(store, Shard(2, 3))
    code, text = command("status", str(store.root), capsys=capsys)
    assert code == 1 and re.search(r"3 rows, 1 done, 1 failed, 1 left\na driver of shard 2-of-3: process \d+ on ", text)
    lock.release()
    code, text = command("retry", str(store.root), capsys=capsys)
    assert (code, text) == (0, "Failed rows that run again with the next `relay-batch run`: 1\n")
    assert list(progress(store, 3).states) == [1, 0, 0]
    assert read_attempts(store, 2).count == 0
    code, text = command("report", str(store.root), capsys=capsys)
    assert code == 0 and Path(text.strip()).is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--comfyui is missing"),
        (["--comfyui", "nowhere", "--node-table", "none.json"], "The node table none.json can't be read"),
        (["--comfyui", "nowhere"], "--comfyui .*nowhere: there is no main.py"),
    ],
)
def test_a_run_that_can_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "workflow.json", "--out", "out", *more]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not [file for file in Path().rglob("*") if file.is_file()]


def test_a_picture_reaches_a_worker_that_has_no_such_path(tmp_path: Path) -> None:
    picture, folder = tmp_path / "a.PNG", tmp_path / "input"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(picture)
    job = Job(0, {}, pictures=(InputPicture((("1", "image"),), str(picture)),))
    packed = pickle.loads(pickle.dumps(job.packed()))
    here = lay_down(job.pictures[0], folder)
    data = picture.read_bytes()
    picture.unlink()
    assert lay_down(packed.pictures[0], folder) == here  # the host knows it again
    assert here.read_bytes() == data and here.suffix == ".png"
    with pytest.raises(RowFault, match="There is no picture"):
        lay_down(job.pictures[0], folder)
    with pytest.raises(BadPicture, match="can't be read"):
        job.packed()


def test_what_workers_have_left_behind_is_removed(tmp_path: Path) -> None:
    machine = host._machine()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {f"relay-batch-{machine}-{ended.pid}-abc", f"relay-batch-{machine}-{os.getpid()}-abc"}
    names |= {f"relay-batch-0badcafe-{ended.pid}-abc", "relay-batch-notes", "other"}
    for name in names:
        (tmp_path / name / "temp").mkdir(parents=True)
    host.remove_left_behind(tmp_path)
    left = {folder.name for folder in tmp_path.iterdir()}
    assert names - left == {f"relay-batch-{machine}-{ended.pid}-abc"}


def test_a_full_disk_of_the_host_is_no_fault_of_the_row() -> None:
    error = {"node_id": "3", "node_type": "SaveImage", "exception_type": "OSError"}
    text = "[Errno 28] No space left on device: '/tmp/x.png'"
    entry = {"status": {"status_str": "error", "messages": [["execution_error", {**error, "exception_message": text}]]}}
    with pytest.raises(OSError, match="node 3"):
        raise_for_error(entry)


def test_a_file_outside_of_the_output_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "output").mkdir()
    entry = {"outputs": {"3": {"images": [{"filename": "secret.txt", "subfolder": "..", "type": "output"}]}}}
    with pytest.raises(Exception, match="outside of its folder"):
        read_outputs(entry, tmp_path / "output")
