"""What a node says stays: in the node until it runs again, on both pages and in both of their renderers, and in the history."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay_dev.model_folders import SmallModels
from relay_host.page import HostPage, NodeOnPage, open_page_beside
from relay_host.paths import ARTIFACTS, WORK
from relay_host.server import HostServer
from support.graph import Graph

FRONT_END_VERSION = "1.58.1"
MARKUP = '<img src=x onerror="window.ran=1">'
PROMPT = f"a cat [{MARKUP}] of __colour__"
CONVERTED = "Latent converted from sdxl_base: decoded, then encoded."

SET_RENDERER = """
async nodes2 => {
    const settings = window.app.extensionManager.setting, changes = !!settings.get('Comfy.VueNodes.Enabled') !== nodes2;
    if (changes) await settings.set('Comfy.VueNodes.Enabled', nodes2);
    return changes;
}
"""
NOTES = """
name => {
    const node = window.app.graph.getNodeById(name);
    const element = node.widgets?.find(widget => widget.name === 'relay_notes')?.element;
    if (!element) return null;
    const box = element.getBoundingClientRect(), on = window.app.canvas.ds;
    const frame = window.app.canvas.canvas.getBoundingClientRect();
    const left = frame.left + (node.pos[0] + on.offset[0]) * on.scale, top = frame.top + (node.pos[1] + on.offset[1]) * on.scale;
    const body = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
        ?? {left, top, right: left + node.size[0] * on.scale, bottom: top + node.size[1] * on.scale};
    return {
        lines: [...element.children].map(line => line.textContent),
        tags: [...element.querySelectorAll('*')].map(child => child.tagName),
        high: box.height / on.scale,
        inside: box.width > 0 && box.left >= body.left && box.right <= body.right && box.top >= body.top && box.bottom <= body.bottom,
    };
}
"""
SET_WIDGET = """
([id, name, value]) => {
    const widget = window.app.graph.getNodeById(id).widgets.find(widget => widget.name === name);
    widget.value = value;
    widget.callback?.(value);
    return true;
}
"""
SAVED = "() => window.app.graph.serialize()"


def newest_front_end() -> Path:
    """The folder of the newest page, for the host's option --front-end-root."""
    target = WORK / f"notes-front-end-{FRONT_END_VERSION}"
    if not target.exists():
        wanted = f"comfyui-frontend-package=={FRONT_END_VERSION}"
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target), wanted]
        subprocess.run(download, check=True)
        (wheel,) = target.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    return target / "comfyui_frontend_package" / "static"


@pytest.fixture(scope="module")
def newest_page(models: SmallModels, page: HostPage) -> Iterator[HostPage]:
    arguments = ["--front-end-root", str(newest_front_end())]
    with HostServer(models=models.models, environment=models.environment(), arguments=arguments) as server:
        yield open_page_beside(page, server.url).__enter__()  # it is closed with the browser


@contextmanager
def renderer(page: HostPage, nodes_2: bool) -> Iterator[None]:
    if page.ask(SET_RENDERER, nodes_2):
        page.open(300)
    try:
        yield
    finally:
        page.ask(SET_RENDERER, False)


@dataclass(frozen=True)
class Seen:
    """What the page shows in two nodes, and what it would save."""

    prompt: dict[str, Any] | None
    converted: dict[str, Any] | None
    saved: dict[str, Any]
    outputs: dict[str, Any]


@dataclass(frozen=True)
class Runs:
    before: Seen
    first: Seen
    again: Seen
    """The prompt's node was cached."""
    harmless: Seen
    """The prompt gives no note."""
    ids: dict[str, str]
    height: float
    """The height of the prompt's node in the end."""
    ran: Any
    name: str
    page: HostPage


NODES = [
    NodeOnPage("sdxl", "RelayLoadModel", (0, 0), {"model": "sdxl_base", "dtype": "float32"}),
    NodeOnPage("sd", "RelayLoadModel", (0, 250), {"model": "sd15", "dtype": "float32"}),
    NodeOnPage("empty", "EmptyImage", (0, 500), {"width": 64, "height": 64}),
    NodeOnPage("encoded", "RelayEncode", (400, 500), {"control_after_generate": "fixed"}),
    NodeOnPage("converted", "RelayConvertLatent", (750, 500)),
    NodeOnPage("prompt", "RelayEncodePrompt", (400, 0), {"prompt": PROMPT}),
    NodeOnPage(
        "sampler",
        "RelayTextToImage",
        (850, 0),
        {"width": 64, "height": 64, "steps": 2, "control_after_generate": "fixed"},
    ),
    NodeOnPage("save", "SaveLatent", (1250, 0)),
    NodeOnPage("save_converted", "SaveLatent", (1250, 500)),
]
LINKS = [
    ("sdxl", "model", "encoded", "model"),
    ("empty", "IMAGE", "encoded", "image"),
    ("sd", "model", "converted", "model"),
    ("encoded", "latent", "converted", "latent"),
    ("converted", "latent", "save_converted", "samples"),
    ("sd", "model", "prompt", "model"),
    ("sd", "model", "sampler", "model"),
    ("prompt", "prompt", "sampler", "prompt"),
    ("sampler", "latent", "save", "samples"),
]


def runs_on(page: HostPage, name: str) -> Runs:
    ids = page.build(NODES, LINKS)
    page.to_api()  # the page puts the nodes in the order in which they run
    page.fit_view()
    page.page.wait_for_timeout(1500)

    def seen(outputs: dict[str, Any], picture: str) -> Seen:
        page.screenshot(ARTIFACTS / "page" / f"notes_{name}_{picture}.png")
        return Seen(page.ask(NOTES, ids["prompt"]), page.ask(NOTES, ids["converted"]), page.ask(SAVED), outputs)

    def run() -> dict[str, Any]:
        outputs = page.queue_and_wait(300).raise_for_error().outputs
        page.page.wait_for_timeout(1500)
        return outputs

    before = seen({}, "before")
    first = seen(run(), "first")
    page.ask(SET_WIDGET, [ids["encoded"], "seed", 2])
    again = seen(run(), "again")
    page.ask(SET_WIDGET, [ids["prompt"], "prompt", "a cat"])
    harmless = seen(run(), "harmless")
    height = page.ask("id => window.app.graph.getNodeById(id).size[1]", ids["prompt"])
    return Runs(before, first, again, harmless, ids, height, page.ask("() => window.ran ?? null"), name, page)


@pytest.fixture(scope="module", params=["own-canvas", "own-nodes2", "newest-canvas", "newest-nodes2"])
def runs(request: pytest.FixtureRequest, page: HostPage) -> Iterator[Runs]:
    which, kind = request.param.split("-")
    shown = page if which == "own" else request.getfixturevalue("newest_page")
    with renderer(shown, kind == "nodes2"):
        yield runs_on(shown, request.param)


def changes(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Where two saved workflows differ, and how."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from changes(before.get(key), after.get(key), f"{place}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after)):
            yield from changes(*pair, f"{place}[{number}]")
    elif before != after:
        yield f"{place}: {before} -> {after}"


def saved(runs: Runs, seen: Seen) -> dict[str, Any]:
    """What the page would save, less the sizes that the page changes itself."""
    nodes = []
    for node in seen.saved["nodes"]:
        # A sampler grows by its preview. The host's own Nodes 2.0 is an early one, which scales the nodes while it shows them.
        grows = str(node["id"]) == runs.ids["sampler"] or runs.name == "own-nodes2"
        left_out = {"pos", "size"} if grows else set()
        nodes.append({key: value for key, value in node.items() if key not in left_out})
    return {"nodes": nodes, "links": seen.saved["links"], "groups": seen.saved["groups"]}


def sizes(runs: Runs, seen: Seen) -> list[Any]:
    return [node.get("size") for node in saved(runs, seen)["nodes"]]


def test_the_notes_are_in_the_node_and_in_the_output(runs: Runs) -> None:
    assert runs.before.prompt is None
    assert runs.before.converted is None
    said = runs.first.outputs[runs.ids["prompt"]]["relay_notes"]
    assert len(said) == 2
    assert MARKUP[:20] in said[1]
    assert runs.first.prompt["lines"] == said
    assert runs.first.converted["lines"] == [CONVERTED]
    assert runs.first.outputs[runs.ids["converted"]] == {"relay_notes": [CONVERTED]}
    for shown in (runs.first.prompt, runs.first.converted):
        assert shown["inside"]
        assert shown["high"] > 15


def test_markup_in_a_note_is_text(runs: Runs) -> None:
    assert set(runs.first.prompt["tags"]) == {"P"}
    assert runs.ran is None
    assert runs.page.errors == []


def test_the_workflow_is_saved_as_before_the_run(runs: Runs) -> None:
    assert list(changes(saved(runs, runs.before), saved(runs, runs.first))) == []


def test_a_cached_node_keeps_its_notes(runs: Runs) -> None:
    assert runs.ids["prompt"] not in runs.again.outputs, "the node must come from the cache"
    assert runs.again.prompt["lines"] == runs.first.prompt["lines"]
    assert runs.again.outputs[runs.ids["converted"]] == {"relay_notes": [CONVERTED]}
    assert runs.again.converted["lines"] == [CONVERTED]
    assert sizes(runs, runs.again) == sizes(runs, runs.before)


def test_a_new_run_of_the_node_removes_them(runs: Runs) -> None:
    assert runs.harmless.prompt is None
    assert runs.harmless.converted["lines"] == [CONVERTED]
    assert sizes(runs, runs.harmless) == sizes(runs, runs.before)
    if runs.name != "own-nodes2":
        assert runs.height == next(
            n["size"][1] for n in runs.before.saved["nodes"] if str(n["id"]) == runs.ids["prompt"]
        )


def test_they_come_back_with_the_outputs_that_the_page_kept(runs: Runs) -> None:
    """The page keeps outputs by workflow, and sets them when it shows the workflow again."""
    page, node = runs.page, runs.ids["prompt"]
    page.ask("outputs => { window.app.nodeOutputs = outputs; return true; }", {node: {"relay_notes": ["Kept."]}})
    page.page.wait_for_timeout(1000)
    assert page.ask(NOTES, node)["lines"] == ["Kept."]
    assert page.ask(NOTES, runs.ids["converted"]) is None
    page.ask("() => { window.app.nodeOutputs = {}; return true; }")
    assert page.ask(NOTES, node) is None


def test_an_api_client_gets_the_notes(server: HostServer) -> None:
    graph = Graph()
    model = graph.load("sd15")
    noted, quiet = graph.encode(model, PROMPT), graph.encode(model, "a cat")
    samplers = [graph.text_to_image(model, prompt, steps=2) for prompt in (noted, quiet)]
    saved = [graph.add("SaveLatent", samples=latent, filename_prefix="notes") for latent in samplers]
    result = server.run(graph.prompt).raise_for_error()
    assert set(result.outputs) == {noted.node, *(out.node for out in saved)}, "a node that says nothing has no output"
    assert result.outputs[noted.node] == {"relay_notes": [text for node, text in result.texts if node == noted.node]}
    assert len(result.outputs[noted.node]["relay_notes"]) == 2
