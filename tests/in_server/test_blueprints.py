"""The blueprints: found on the page by name, placed as one node, connected, and run."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from relay_dev.blueprints import BLUEPRINTS
from relay_dev.blueprints.blueprint import Blueprint
from relay_host.page import HostPage
from relay_host.paths import PACK_FOLDER
from relay_host.server import HostServer
from support.pages import NODES_2, artifacts_of

SIDE = 64
PROMPT = "a large red star on a black background"
VALUES = {"prompt": PROMPT, "prompt_1": PROMPT, "width": SIDE, "height": SIDE, "steps": 4, "seed": 7}
LARGER = {"Upscale x2-x4 (Diffusers)": 8}
"""How many times as large as the picture the result is."""

CONNECT = """
({side, values}) => {
    const graph = window.app.graph, [node] = graph.nodes;
    const add = (type, widgets = {}) => {
        const made = LiteGraph.createNode(type);
        graph.add(made);
        for (const [name, value] of Object.entries(widgets)) made.widgets.find(one => one.name === name).value = value;
        return made;
    };
    const taken = [];
    for (const [at, input] of node.inputs.entries()) {
        if (input.type === 'IMAGE') {
            const picture = add('LoadImage', {image: 'example.png'});
            const scaled = add('ImageScale', {upscale_method: 'area', width: side, height: side});
            picture.connect(0, scaled, 0);
            scaled.connect(0, node, at);
        } else if (input.type === 'MASK') {
            add('SolidMask', {value: 1, width: side, height: side}).connect(0, node, at);
        } else {
            const widget = node.widgets.find(one => one.name === input.name);
            if (input.name in values) { widget.value = values[input.name]; taken.push(input.name); }
        }
    }
    node.connect(0, add('SaveImage'), 0);
    return taken;
}
"""
SHOWN = """
() => window.app.graph.nodes.map(node => ({
    title: node.title, subgraph: !!node.subgraph, outputs: node.outputs.map(one => one.name),
    inputs: node.inputs.map(one => one.name), widgets: (node.widgets ?? []).map(one => one.name)}))
"""


@pytest.fixture(scope="module", params=[NODES_2])
def page_name(request: pytest.FixtureRequest) -> str:
    """The newest page: older ones show blueprints in other ways, or not at all."""
    return request.param


@pytest.fixture(params=BLUEPRINTS, ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest) -> Blueprint:
    return request.param()


def place(page: HostPage, name: str) -> list[dict[str, Any]]:
    """Double-clicks on an empty canvas, types the name, and takes the first node that is found. Returns what is on the canvas.

    The search finds a little after the last letter; on a busy machine it has not yet, so it is tried again, more slowly.
    """
    for pause in (500, 2000, 6000, 12_000):
        page.ask("() => { window.app.graph.clear(); window.app.canvas.ds.reset(); return true; }")
        size = page.page.viewport_size
        assert size is not None
        page.page.mouse.dblclick(size["width"] / 2, size["height"] / 2)
        page.page.wait_for_timeout(pause)
        page.page.keyboard.type(name)
        page.page.wait_for_timeout(2 * pause)
        page.page.keyboard.press("Enter")
        page.page.wait_for_timeout(pause)
        page.page.mouse.click(size["width"] / 2, size["height"] / 2)  # newer pages hang the new node on the pointer
        page.page.wait_for_timeout(pause)
        shown = page.ask(SHOWN)
        if shown:
            return list(shown)
        page.page.keyboard.press("Escape")
    raise AssertionError(f"the search places no node for {name}")


def test_the_server_offers_them(page_server: HostServer) -> None:
    offered = [
        one["name"]
        for one in page_server.get("/global_subgraphs").values()
        if one["info"]["node_pack"] == f"custom_nodes.{PACK_FOLDER}"
    ]
    assert sorted(offered) == sorted(make().name for make in BLUEPRINTS)


def test_a_blueprint_is_placed_as_one_node_and_runs(
    page: HostPage, page_name: str, page_server: HostServer, made: Blueprint
) -> None:
    (node,) = place(page, made.name)
    assert node["title"] == made.name and node["subgraph"]
    assert node["inputs"] == [name for name, _ in made.inputs]
    assert node["outputs"] == [name for name, _ in made.outputs]
    taken = page.ask(CONNECT, {"side": SIDE, "values": VALUES})
    assert set(taken) == {name for name, _ in made.inputs} & set(VALUES)
    page.fit_view()
    page.screenshot(artifacts_of(page_name) / "blueprints" / f"{made.name}.png")
    sent = page.to_api().values()
    for name in taken:
        key = made.inputs[[one for one, _ in made.inputs].index(name)][1][0][1]
        assert VALUES[name] in [one["inputs"].get(key) for one in sent], f"{name} does not arrive"
    run = page.queue_and_wait(200).raise_for_error()
    (picture,) = (entry for output in run.outputs.values() for entry in output.get("images", []))
    with Image.open(page_server.folders["output"] / picture["subfolder"] / picture["filename"]) as image:
        side = SIDE * LARGER.get(made.name, 1)
        assert image.size == (side, side)
    assert page.errors == []
