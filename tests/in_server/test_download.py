"""A hub download of a model or a ControlNet in the node: progress, cancel in the middle, resuming, and the picture at the end."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reference.control_scripts import edges
from relay_dev.model_folders import SmallModels, small_models
from relay_host.fake_hub import FakeHub, FakeRepo
from relay_host.server import HostServer
from small_models.finetunes import add_fp16_files
from support.graph import Graph, Out, saved

REPO = "someone/small-model"
CONTROLNET = "someone/small-controlnet"


@pytest.fixture(scope="module")
def hub(models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    folder = tmp_path_factory.mktemp("controlnet")
    shutil.copytree(models.controlnets["sd15_depth"], folder, dirs_exist_ok=True)
    add_fp16_files(folder)
    unwanted = {"README.md": b"# A ControlNet", "diffusion_pytorch_model.bin": b"0" * 1000, "images/out.png": b"0"}
    with FakeHub() as running:
        running.repos[REPO] = FakeRepo.of_folder(models.named["sd15"])
        running.repos[CONTROLNET] = FakeRepo.of_folder(folder, **unwanted)
        running.repos["someone/model"] = FakeRepo({"model_index.json": b"{}"})
        running.repos["someone/flux"] = FakeRepo({"config.json": b'{"_class_name": "FluxControlNetModel"}'})
        yield running


def with_cache(hub: FakeHub, home: Path, models: Path | None = None) -> HostServer:
    """A server with the hub `hub`, a cache in `home`, and the models folder `models`."""
    environment = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN": "hf_secretsecretsecret",
    }
    return HostServer(models=models, environment=environment)


@pytest.fixture(scope="module")
def online(hub: FakeHub, models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    """A server with an empty hub cache; previews are off, as in a new ComfyUI."""
    home = tmp_path_factory.mktemp("hf-home")
    with with_cache(hub, home, models.models) as running:
        running.cache = home / "hub"  # type: ignore[attr-defined]
        yield running


def from_hub(repo_id: str = REPO) -> tuple[Graph, Out, Out]:
    graph = Graph()
    model = graph.add("RelayLoadModelFromHub", repo_id=repo_id, revision="", variant="auto", dtype="float32")
    return (
        graph,
        model,
        graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, "a cat"), steps=3))),
    )


def test_cancel_in_a_download_then_go_on(online: HostServer, hub: FakeHub) -> None:
    hub.go_on.clear()
    hub.hold_after = 1 << 16
    graph, model, saving = from_hub()
    pending = online.queue(graph.prompt)
    online.wait_until(pending, lambda run: any(p.node_id == model.node and p.value > 0 for p in run.progress))
    online.interrupt()
    result = online.wait(pending, timeout=30)
    assert result.interrupted
    assert result.error is None
    assert [text for node, text in result.texts if node == model.node and REPO in text and "MB" in text]
    hub.go_on.set()
    hub.hold_after = None
    partial = list(Path(online.cache).rglob("*.incomplete"))  # type: ignore[attr-defined]
    assert partial, "the partial file is kept"

    hub.requests.clear()
    result = online.run(graph.prompt)
    assert saved(result, saving).std() > 10
    assert any(request.range for request in hub.requests), "only the rest is requested"
    reports = [report for report in result.progress if report.node_id == model.node]
    assert reports[-1].value == reports[-1].maximum > 1e6, "bytes"
    assert result.previews == (), "previews are off here"


def test_nothing_is_fetched_twice_and_the_token_is_told_to_nobody(online: HostServer, hub: FakeHub) -> None:
    graph, _, _ = from_hub()
    online.run(graph.prompt).raise_for_error()
    online.free()
    hub.requests.clear()
    online.run(graph.prompt).raise_for_error()
    assert not [request for request in hub.requests if request.path.startswith("/storage")]
    graph, _, _ = from_hub("nobody/nothing")
    error = online.run(graph.prompt).error
    assert error is not None
    assert "nobody/nothing" in error.message
    assert "secretsecret" not in error.message + error.traceback + online.log_text()


def controlled(server: HostServer, repo_id: str = CONTROLNET, variant: str = "auto") -> tuple[Graph, Out, Out]:
    """A ControlNet from the hub, for a local model."""
    graph = Graph()
    model = graph.load("sd15")
    net = graph.controlnet_from_hub(repo_id, variant)
    control = graph.control(net, graph.picture(server, edges(64, 64), "edges.png"))
    latent = graph.text_to_image(model, graph.encode(model, "a cat"), control=control)
    return graph, net, graph.save(graph.decode(model, latent))


def test_cancel_in_a_controlnet_s_download_and_run_again(online: HostServer, hub: FakeHub) -> None:
    hub.requests.clear()
    hub.go_on.clear()
    hub.hold_after = 1 << 15
    graph, net, saving = controlled(online)
    pending = online.queue(graph.prompt)
    online.wait_until(pending, lambda run: any(node == net.node and "Download of" in text for node, text in run.texts))
    online.interrupt()
    result = online.wait(pending, timeout=30)
    assert result.interrupted
    assert result.error is None
    assert [text for node, text in result.texts if node == net.node and CONTROLNET in text and "1 files" in text]
    hub.go_on.set()
    hub.hold_after = None
    result = online.run(graph.prompt)
    assert saved(result, saving).std() > 10
    assert hub.fetched() <= {"config.json", "diffusion_pytorch_model.safetensors"}
    reports = [report for report in result.progress if report.node_id == net.node]
    assert reports[-1].value == reports[-1].maximum > 1e5, "bytes"


@pytest.mark.parametrize(
    ("repo_id", "message"),
    [
        ("someone/model", r"someone/model has no config\.json.*Load Diffusers Model from Hub"),
        ("someone/flux", r"someone/flux is not a ControlNet.*FluxControlNetModel"),
        ("nobody/nothing", r"The hub has no model nobody/nothing"),
    ],
)
def test_another_kind_of_repository(online: HostServer, repo_id: str, message: str) -> None:
    graph, _, _ = controlled(online, repo_id)
    error = online.run(graph.prompt).error
    assert error is not None
    assert error.node_type == "RelayLoadControlNetFromHub"
    assert re.search(message, error.message), error.message


def test_the_fp16_files_are_taken_where_they_are_asked_for(online: HostServer, hub: FakeHub) -> None:
    hub.requests.clear()
    graph, _, saving = controlled(online, variant="fp16")
    assert saved(online.run(graph.prompt), saving).std() > 10
    assert "diffusion_pytorch_model.fp16.safetensors" in hub.fetched()
    assert "diffusion_pytorch_model.safetensors" not in hub.fetched()


def large_files(hub: FakeHub, repo_id: str = REPO) -> list[bytes]:
    """Contents of the files in the hub's large file storage, largest first."""
    files = hub.repos[repo_id].files
    return sorted((files[name] for name in files if name.endswith(".safetensors")), key=len, reverse=True)


def test_a_disk_that_is_full_in_the_middle(online: HostServer, hub: FakeHub) -> None:
    """The first file is written to /dev/full, where the kernel reports a full disk."""
    other = "someone/another-model"
    hub.repos[other] = FakeRepo.of_folder(small_models().named["comic"])
    blobs = Path(online.cache) / "models--someone--another-model" / "blobs"  # type: ignore[attr-defined]
    blobs.mkdir(parents=True)
    places = [blobs / f"{hashlib.sha256(content).hexdigest()}.relay.incomplete" for content in large_files(hub, other)]
    for place in places:
        place.symlink_to("/dev/full")
    graph, model, saving = from_hub(other)
    error = online.run(graph.prompt).error
    assert error is not None
    assert error.node_id == model.node
    assert "The disk is full" in error.message
    assert other in error.message
    assert not [place for place in places if place.with_name(place.name.split(".")[0]).exists()], (
        "no partial file counts as complete"
    )
    for place in places:
        place.unlink(missing_ok=True)
    assert saved(online.run(graph.prompt), saving).std() > 10


WRITTEN_AT_ONCE = 10 << 20
"""The library writes data in chunks of this size: a killed process loses an incomplete chunk."""


def padded(content: bytes, size: int) -> bytes:
    """The same safetensors file with spaces at the end of its header, which the format allows."""
    (length,) = struct.unpack("<Q", content[:8])
    blanks = size - len(content)
    return struct.pack("<Q", length + blanks) + content[8 : 8 + length] + b" " * blanks + content[8 + length :]


def test_a_download_whose_server_is_killed_goes_on_in_the_next(hub: FakeHub, tmp_path: Path) -> None:
    other = "someone/large-model"
    hub.repos[other] = repo = FakeRepo.of_folder(small_models().named["comic"])
    name = "unet/diffusion_pytorch_model.safetensors"
    repo.files[name] = content = padded(repo.files[name], 3 * WRITTEN_AT_ONCE)
    sha256 = hashlib.sha256(content).hexdigest()
    partial = tmp_path / "hub" / "models--someone--large-model" / "blobs" / f"{sha256}.relay.incomplete"
    graph, _, saving = from_hub(other)
    hub.go_on.clear()
    hub.hold_after = len(content) - 1
    with with_cache(hub, tmp_path) as first:
        first.queue(graph.prompt)
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size >= WRITTEN_AT_ONCE):
            assert time.monotonic() < deadline, first.log_tail()
            time.sleep(0.05)
        assert first.process is not None
        first.process.kill()
        first.process.wait(15)
    kept = partial.stat().st_size
    hub.go_on.set()
    hub.hold_after = None
    hub.requests.clear()
    hub.sent.clear()
    with with_cache(hub, tmp_path) as second:
        assert saved(second.run(graph.prompt), saving).std() > 10
    assert f"bytes={kept}-" in [request.range for request in hub.requests]
    assert hub.sent[sha256] == len(content) - kept, "the existing part is not requested again"
