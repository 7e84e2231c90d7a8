"""What a node says stays: in the node until it runs again, on both pages and in both of their renderers, and in the history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from relay_host.page import HostPage, NodeOnPage
from relay_host.server import HostServer
from support.graph import Graph
from support.pages import FRAMES_PER_SECOND, HOSTS_OWN, artifacts_of

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


@contextmanager
def renderer(page: HostPage, nodes_2: bool) -> Iterator[None]:
    changed = page.ask(SET_RENDERER, nodes_2)
    if changed:
        page.open(300)
        page.draw_at_most(FRAMES_PER_SECOND)
    try:
        yield
    finally:
        if changed:
            page.ask(SET_RENDERER, not nodes_2)  # the next module opens the page anew


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
    early: bool
    """The host's own Nodes 2.0 is an early one, which scales the nodes while it shows them."""
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


def wait_until_drawn(page: HostPage, nodes: list[str]) -> None:
    """The page draws a run's notes a little after its end, on a busy machine much later."""
    before = None
    for _ in range(40):
        page.page.wait_for_timeout(750)
        now = [page.ask(NOTES, node) for node in nodes]
        if now == before and all(notes is None or notes["inside"] for notes in now):
            return
        before = now


def runs_on(page: HostPage, page_name: str, renderer_name: str) -> Runs:
    ids = page.build(NODES, LINKS)
    page.to_api()  # the page puts the nodes in the order in which they run
    page.fit_view()

    def seen(outputs: dict[str, Any], picture: str) -> Seen:
        wait_until_drawn(page, [ids["prompt"], ids["converted"]])
        page.screenshot(artifacts_of(page_name) / f"notes_{renderer_name}_{picture}.png")
        return Seen(page.ask(NOTES, ids["prompt"]), page.ask(NOTES, ids["converted"]), page.ask(SAVED), outputs)

    def run() -> dict[str, Any]:
        return page.queue_and_wait(300).raise_for_error().outputs

    before = seen({}, "before")
    first = seen(run(), "first")
    page.ask(SET_WIDGET, [ids["encoded"], "seed", 2])
    again = seen(run(), "again")
    page.ask(SET_WIDGET, [ids["prompt"], "prompt", "a cat"])
    harmless = seen(run(), "harmless")
    height = page.ask("id => window.app.graph.getNodeById(id).size[1]", ids["prompt"])
    early = page_name == HOSTS_OWN and renderer_name == "nodes2"
    return Runs(before, first, again, harmless, ids, height, page.ask("() => window.ran ?? null"), early, page)


@pytest.fixture(scope="module", params=["canvas", "nodes2"])
def runs(request: pytest.FixtureRequest, page_name: str, page: HostPage) -> Iterator[Runs]:
    with renderer(page, request.param == "nodes2"):
        yield runs_on(page, page_name, request.param)


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
        grows = str(node["id"]) == runs.ids["sampler"] or runs.early  # a sampler grows by its preview
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
    if not runs.early:
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
