"""Makes the blueprints: builds the nodes of each on the newest page, turns them into a subgraph there, and saves it as the page does.

    PYTHONPATH=devtools python -m relay_dev.make_blueprints                   all of them
    PYTHONPATH=devtools python -m relay_dev.make_blueprints "Image to"        only those whose names begin with this

Writes subgraphs/NAME.json, and a screenshot of each to the artifacts folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Sequence
from typing import Any

from relay_host.front_end import NODES_2_SETTINGS, newest_front_end
from relay_host.page import HostPage, open_page
from relay_host.paths import ARTIFACTS, ROOT
from relay_host.server import HostServer

from .blueprints import BLUEPRINTS
from .blueprints.blueprint import CATEGORY, Blueprint
from .boxes import SETTLE, boxes, sockets
from .examples.layout import TITLE, Shape, lay_out
from .model_folders import small_models

SUBGRAPHS = ROOT / "subgraphs"

WRAP = """
async ({name, inputs, outputs}) => {
    const graph = window.app.graph;
    const {subgraph, node} = graph.convertToSubgraph(new Set([...graph.nodes, ...graph.groups]));
    const inside = title => subgraph.nodes.find(one => one.title === title);
    subgraph.name = node.title = name;
    for (const entry of [...subgraph.inputs]) subgraph.removeInput(entry);  // the page offers seeds by itself
    for (const [label, places] of inputs) {
        let entry;
        for (const [title, key] of places) {
            const target = inside(title), slot = target.inputs.find(one => one.name === key);
            if (!slot) throw new Error(`${title} has no input ${key}; it has ${target.inputs.map(one => one.name)}`);
            entry ??= subgraph.addInput(label, String(slot.type));
            if (!entry.connect(slot, target)) throw new Error(`can't connect ${label} to ${title}.${key}`);
        }
    }
    for (const [label, title, at] of outputs) {
        const slot = inside(title).outputs[at];
        if (!subgraph.addOutput(label, String(slot.type)).connect(slot, inside(title)))
            throw new Error(`can't connect ${title} to ${label}`);
    }
    subgraph.inputNode.arrange();
    subgraph.outputNode.arrange();
    const left = Math.min(...subgraph.nodes.map(one => one.pos[0])), right = Math.max(...subgraph.nodes.map(one => one.pos[0] + one.size[0]));
    const top = Math.min(...subgraph.nodes.map(one => one.pos[1]));
    subgraph.inputNode.pos = [left - 320, top];
    subgraph.outputNode.pos = [right + 160, top];
    node.pos = [0, 0];
    node.setSize([380, node.computeSize()[1]]);
    return true;
}
"""


def build(page: HostPage, made: Blueprint) -> dict[str, Any]:
    """Builds the blueprint on the page and returns what the page saves."""
    sheet = made.sheet
    ids = page.build(sheet.nodes(sheet.preferred_sizes()), sheet.links)
    page.fit_view()
    page.page.wait_for_timeout(SETTLE)
    measured, shown = sockets(page), boxes(page)
    shapes, slots = {}, {}
    for name, (width, _) in sheet.preferred_sizes().items():
        if name in ids:
            node, box = measured[int(ids[name])], shown[int(ids[name])]
            height = box.height - TITLE
            shapes[name] = Shape(max(width, box.width), height, height, node["inputs"], node["outputs"])
            slots[name] = {output: at for at, output in enumerate(node["names"])}
    laid = lay_out(shapes, sheet.groups, sheet.connections(slots), 0)
    sizes = {name: (shape.width, shape.height) for name, shape in shapes.items()}
    page.build(sheet.nodes(sizes, laid.spots), sheet.links)
    page.page.wait_for_timeout(SETTLE)
    titles = {node.name: node.title for node in sheet.nodes(sizes)}
    inputs = [[name, [[titles[node], key] for node, key in places]] for name, places in made.inputs]
    outputs = [[name, titles[output.node], output.slot] for name, output in made.outputs]
    page.ask(WRAP, {"name": made.name, "inputs": inputs, "outputs": outputs})
    page.page.wait_for_timeout(SETTLE)
    workflow = page.ask("async () => (await window.app.graphToPrompt()).workflow")
    return finished(workflow, made)


def finished(workflow: dict[str, Any], made: Blueprint) -> dict[str, Any]:
    """The workflow with an id that stays the same, and with what the page shows about a blueprint."""
    (subgraph,) = workflow["definitions"]["subgraphs"]
    text = json.dumps(workflow, ensure_ascii=False)
    ids = [subgraph["id"], *(one["id"] for one in subgraph["inputs"] + subgraph["outputs"])]
    for number, old in enumerate(ids):
        text = text.replace(old, str(uuid.uuid5(uuid.NAMESPACE_URL, f"diffusers-relay/{made.name}/{number}")))
    workflow = json.loads(text)
    (subgraph,) = workflow["definitions"]["subgraphs"]
    subgraph |= {"category": CATEGORY, "description": made.description}
    extra = {"BlueprintDescription": made.description, "BlueprintSearchAliases": list(made.aliases)}
    return {
        "revision": 0,
        "last_node_id": workflow["last_node_id"],
        "last_link_id": 0,
        "nodes": workflow["nodes"],
        "links": [],
        "version": workflow["version"],
        "definitions": workflow["definitions"],
        "extra": extra,
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names; none: all of them")
    options = parser.parse_args(arguments)
    models = small_models()
    SUBGRAPHS.mkdir(exist_ok=True)
    server = HostServer(
        models=models.models,
        environment=models.environment(),
        arguments=("--front-end-root", str(newest_front_end())),
        settings=NODES_2_SETTINGS,
    )
    with server, open_page(server.url) as page:
        for made in (make() for make in BLUEPRINTS):
            if options.names and not made.name.startswith(tuple(options.names)):
                continue
            text = json.dumps(build(page, made), indent=2, ensure_ascii=False) + "\n"
            (SUBGRAPHS / f"{made.name}.json").write_text(text, "utf-8", newline="\n")
            page.fit_view()
            page.screenshot(ARTIFACTS / "blueprints" / f"{made.name}.png")
            print(f"{made.name}: saved", flush=True)
            if page.errors:
                raise AssertionError(f"the page threw: {page.errors}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
