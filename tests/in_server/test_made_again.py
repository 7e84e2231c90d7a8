"""A saved picture contains its workflow: dropped on another installation's page, it gives the same workflow and the same pixels."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relay_dev.make_examples import SETTLE, saved
from relay_host.page import HostPage, PageRun, open_page_beside
from relay_host.paths import ROOT
from relay_host.server import HostServer, Prompt
from support.pages import HOSTS_OWN, artifacts_of
from support.workflows import essence

WORKFLOWS = ["sd15_image_to_image", "sdxl_base_to_refiner", "kandinsky22_mix_image_and_text"]
SEED_CONTROL = "randomize"

RANDOM_SEEDS = """
control => window.app.graph.nodes.flatMap(node => {
    const at = (node.widgets ?? []).findIndex(widget => widget.name === 'control_after_generate');
    if (at < 0) return [];
    node.widgets[at].value = control;
    node.widgets.find(widget => widget.name === 'seed').value = Math.floor(Math.random() * 2 ** 32);
    return [node.id];
})
"""
"""Seeds that no run before had, so that no server answers from its cache."""
SEEDS = "() => window.app.graph.nodes.flatMap(n => (n.widgets ?? []).filter(w => w.name === 'seed').map(w => w.value))"
DROP = """
({content, name}) => {
    const bytes = Uint8Array.from(atob(content), sign => sign.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name, {type: 'image/png'}));
    const canvas = window.app.canvas.canvas, middle = canvas.getBoundingClientRect();
    const options = {
        dataTransfer: carried, bubbles: true, cancelable: true,
        clientX: middle.x + middle.width / 2, clientY: middle.y + middle.height / 2,
    };
    for (const kind of ['dragenter', 'dragover', 'drop']) canvas.dispatchEvent(new DragEvent(kind, options));
    return true;
}
"""


@pytest.fixture(scope="module")
def elsewhere(page_name: str, server: HostServer, nodes_2_server: HostServer) -> HostServer:
    """Another installation, which has other folders and the other page: pictures go from either page to the other."""
    return nodes_2_server if page_name == HOSTS_OWN else server


@dataclass(frozen=True)
class Made:
    """The page's content when a picture was made, and the picture."""

    workflow: dict[str, Any]
    prompt: Prompt
    seeds: list[int]
    file: Path


def run(page: HostPage, server: HostServer) -> Made:
    workflow, prompt, seeds = saved(page), page.to_api(), page.ask(SEEDS)
    return Made(workflow, prompt, seeds, saved_picture(server, page.queue_and_wait(200).raise_for_error()))


@pytest.fixture(scope="module")
def made(page: HostPage, page_server: HostServer) -> dict[str, Made]:
    """{workflow: its result}; the page has drawn new seeds since."""
    found = {}
    for name in WORKFLOWS:
        page.load_workflow(json.loads((ROOT / "example_workflows" / f"{name}.json").read_text("utf-8")))
        assert page.ask(RANDOM_SEEDS, SEED_CONTROL), "the workflow needs a seed"
        page.take_fewer_steps(4)
        found[name] = run(page, page_server)
        assert page.ask(SEEDS) != found[name].seeds
    return found


def saved_picture(server: HostServer, run: PageRun) -> Path:
    entries = [entry for output in run.outputs.values() for entry in output.get("images", [])]
    entry = next(entry for entry in reversed(entries) if entry["type"] == "output")
    return server.folders["output"] / entry["subfolder"] / entry["filename"]


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def drop(page: HostPage, file: Path) -> None:
    """Drags a file from a folder onto the canvas."""
    page.ask("() => { window.app.graph.clear(); return true; }")
    page.ask(DROP, {"content": base64.b64encode(file.read_bytes()).decode(), "name": file.name})
    page.page.wait_for_function("() => window.app.graph.nodes.length > 0", timeout=90_000)
    page.page.wait_for_timeout(SETTLE)
    assert page.dismiss_dialogs() == []


@pytest.fixture(scope="module")
def dropped(page: HostPage, page_name: str, made: dict[str, Made], elsewhere: HostServer) -> dict[str, Made]:
    """The other page's content after each drop, and the picture that its run saves."""
    found = {}
    with open_page_beside(page, elsewhere.url) as other:
        for name, first in made.items():
            drop(other, first.file)
            found[name] = run(other, elsewhere)
            other.screenshot(artifacts_of(page_name) / f"made_again_{name}.png")
        assert other.errors == []
    return found


def what_runs(prompt: Prompt) -> dict[str, Any]:
    """What a server does with a prompt: without `_meta`, where newer pages also put the package of each node."""
    return {id: {key: value for key, value in node.items() if key != "_meta"} for id, node in prompt.items()}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_same_workflow(made: dict[str, Made], dropped: dict[str, Made], name: str) -> None:
    assert essence(dropped[name].workflow) == essence(made[name].workflow)
    assert what_runs(dropped[name].prompt) == what_runs(made[name].prompt)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_seed_that_the_picture_was_painted_with(made: dict[str, Made], dropped: dict[str, Made], name: str) -> None:
    """Not the seed that the page drew for the next run."""
    assert dropped[name].seeds == made[name].seeds


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_same_pixels(made: dict[str, Made], dropped: dict[str, Made], name: str) -> None:
    first, again = pixels(made[name].file), pixels(dropped[name].file)
    assert first.std() > 5
    assert (again == first).all()


def test_the_picture_tells_nothing_else(made: dict[str, Made], page_server: HostServer) -> None:
    """It contains no local folder, user name or token."""
    for one in made.values():
        text = " ".join(f"{key}: {value}" for key, value in Image.open(one.file).info.items())
        assert "workflow: " in text
        assert all(secret not in text for secret in (str(page_server.base), str(ROOT), str(Path.home())))
