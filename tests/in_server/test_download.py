"""A hub download in the node: progress, cancel in the middle, going on where it stopped, and the picture at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_dev.fake_hub import FakeHub, FakeRepo
from relay_dev.model_folders import SmallModels
from relay_dev.server import HostServer
from support.graph import Graph, Out, saved

REPO = "someone/small-model"


@pytest.fixture(scope="module")
def hub(models: SmallModels) -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.repos[REPO] = FakeRepo.of_folder(models.named["sd15"])
        yield running


@pytest.fixture(scope="module")
def online(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    """A server with an empty hub cache, whose hub is `hub`; its previews are off, as they are in a new ComfyUI."""
    home = tmp_path_factory.mktemp("hf-home")
    environment = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN": "hf_secretsecretsecret",
    }
    with HostServer(environment=environment) as running:
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
    assert partial, "what was there is kept"

    hub.requests.clear()
    result = online.run(graph.prompt)
    assert saved(result, saving).std() > 10
    assert any(request.range for request in hub.requests), "the rest is asked for, and not the whole again"
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
