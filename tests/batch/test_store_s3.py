"""The store in S3, against moto's server: a file is written once, whoever writes; the rest is as in a folder."""

from __future__ import annotations

import json
import subprocess
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relay_batch.errors import BadOutput
from relay_batch.progress import faults, progress
from relay_batch.records import publish_done, publish_failed
from relay_batch.store_s3 import S3Store
from relay_host.batch import batch_command, batch_variables
from support.batch_nodes import api_workflow, recorded
from support.s3_server import BUCKET, s3_server

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3") / "moto.log") as variables:
        yield variables


@pytest.fixture
def store(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """An empty place."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return S3Store(f"s3://{BUCKET}/runs/{uuid.uuid4()}")


def test_files(store: S3Store) -> None:
    assert store.write_new("records/0000/a.json", b"one")
    assert not store.write_new("records/0000/a.json", b"two")
    assert store.read("records/0000/a.json") == b"one"
    store.replace("records/0000/a.json", b"three")
    store.replace("pictures/b.png", b"")
    assert store.read("records/0000/a.json") == b"three"
    assert dict(store.sizes("records")) == {"records/0000/a.json": 5}
    assert list(store.names("rec")) == []
    for _ in range(2):
        store.remove("pictures/b.png")
    assert list(store.names("pictures")) == []
    with pytest.raises(FileNotFoundError, match=r"has no pictures/b\.png"):
        store.read("pictures/b.png")


def test_a_file_that_grows(store: S3Store) -> None:
    store.append("metrics.jsonl", b"1\n")
    store.append("metrics.jsonl", b"2\n")
    other = S3Store(str(store))  # the next driver
    other.append("metrics.jsonl", b"3\n")
    assert store.read("metrics.jsonl") == b"1\n2\n3\n"


def test_more_files_than_one_answer_lists(store: S3Store) -> None:
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda number: store.replace(f"records/0000/{number:07}.done.json", b"{}"), range(1001)))
    assert sorted(store.names("records")) == [f"records/0000/{number:07}.done.json" for number in range(1001)]


def test_one_of_many_writers_wins(store: S3Store) -> None:
    together = threading.Barrier(8)

    def write(number: int) -> bool:
        together.wait()
        return store.write_new("records/0000/x.json", b"%d" % number)

    with ThreadPoolExecutor(8) as writers:
        won = list(writers.map(write, range(8)))
    assert won.count(True) == 1
    assert store.read("records/0000/x.json") == b"%d" % won.index(True)


def test_a_write_whose_answer_was_lost_has_won(store: S3Store) -> None:
    """The service has the file, and the client, which asks again, is told that it is there."""
    S3Store(str(store)).write_new("a", b"mine")
    assert store.write_new("a", b"mine")


def test_a_row_is_published_once(store: S3Store) -> None:
    first = publish_done(store, 5, [("3", b"red", ".png")], {"2.text": "a"})
    assert publish_done(store, 5, [("3", b"blue", ".png")], {"2.text": "a"}) == first
    publish_failed(store, 6, "hung", {})
    publish_done(store, 6, [("3", b"red", ".png")], {})
    assert (progress(store, 7).done, progress(store, 7).failed) == (2, 0)
    assert list(faults(store, 7)) == []
    store.replace(first.pictures[0].name, b"bad")
    assert list(faults(store, 7)) == [f"{first.pictures[0].name}: its content is not what its record says"]


def test_a_service_that_ignores_the_condition_is_refused(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put = store._client.put_object
    monkeypatch.setattr(store._client, "put_object", lambda IfNoneMatch="", **rest: put(**rest))
    with pytest.raises(OSError, match="ignores If-None-Match, so a row could be published twice"):
        store.write_new("a", b"1")


@pytest.mark.parametrize("address", ["s3://", "s3:///a", "s3://A_B/c", "s3://bucket/../c", "s3://bucket/a:b"])
def test_addresses_that_are_none(store: S3Store, address: str) -> None:
    with pytest.raises(BadOutput, match=r"no place in S3|not a name inside"):
        S3Store(address)


def test_names_stay_inside_of_the_prefix(store: S3Store) -> None:
    with pytest.raises(BadOutput, match="not a name inside"):
        store.write_new("../a", b"x")


def test_what_the_service_refuses_is_said(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"s3://nobody-s/runs: a: .*bucket does not exist"):
        S3Store("s3://nobody-s/runs").write_new("a", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(OSError, match="can't be reached"):
        S3Store(f"s3://{BUCKET}/x").write_new("a", b"x")


def relay_batch(server: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*batch_command(), *arguments], cwd=folder, env=batch_variables(server), capture_output=True, text=True
    )


def test_the_command(server: dict[str, str], store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "nodes.json").write_text(json.dumps(recorded()["nodes"]), "utf-8")
    (tmp_path / "workflow.json").write_text(json.dumps(api_workflow()), "utf-8")
    out = str(store)
    plan = ["plan", "workflow.json", "--node-table", "nodes.json", "--out", out, "--set", "5.seed=@[1, 2]"]
    done = relay_batch(server, tmp_path, *plan)
    assert done.stdout == f"2 rows, 0 done, 0 failed, 2 left. The plan is in {out}.\n", done.stderr
    assert relay_batch(server, tmp_path, "status", out).stdout.startswith("2 rows, 0 done, 0 failed, 2 left")
    assert relay_batch(server, tmp_path, "verify", out).stdout == "0 of 2 rows are done; 0 faults\n"
    other = relay_batch(server, tmp_path, *plan[:-1], "5.seed=@[1, 3]")
    assert (other.returncode, "the table's values have changed" in other.stderr) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nodes.json", "workflow.json"]
    assert json.loads(store.read("manifest.json"))["rows"] == 2
    missing = relay_batch(server, tmp_path, "status", "s3://nobody-s/out")
    assert (missing.returncode, "bucket does not exist" in missing.stderr) == (2, True)
