"""The batch package turns workflows in UI format into the very prompts that the page queues, or refuses them by a node's name."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from relay_batch.errors import UnreadableWorkflow
from relay_batch.node_table import NodeTable
from relay_batch.ui_convert import Prompt, convert
from relay_batch.ui_widgets import VIEWERS
from relay_host.front_end import FRONT_END_VERSION
from relay_host.page import HostPage
from relay_host.paths import ROOT
from relay_host.server import HostServer
from support.batch_nodes import recorded
from support.pages import HOSTS_OWN
from support.saved_workflows import saved_workflows

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
TEMPLATES = "comfyui-workflow-templates"
NEWER = {"muted save"}
"""What the newest page makes otherwise than the host's own page and we: it repairs a link that only one of its ends knows."""
TO_API = """
async workflow => {
    await window.app.loadGraphData(workflow, true, false, null,
                                   {showMissingNodesDialog: false, showMissingModelsDialog: false});
    return (await window.app.graphToPrompt()).output;
}
"""


@pytest.fixture(scope="module")
def nodes(page_server: HostServer) -> NodeTable:
    return NodeTable(page_server.object_info())


def what_the_server_reads(prompt: Prompt, nodes: NodeTable) -> Prompt:
    """Without what newer pages note of a node's pack, and without the values of viewers on the page, which are no inputs."""
    return {
        id: {
            "class_type": node["class_type"],
            "inputs": {name: value for name, value in node["inputs"].items() if _is_read(nodes, node, name)},
            "_meta": {"title": node["_meta"]["title"]},
        }
        for id, node in prompt.items()
    }


def _is_read(nodes: NodeTable, node: dict[str, Any], name: str) -> bool:
    type = nodes.get(node["class_type"])
    return type is None or type.input(name) is not None or node["class_type"] not in VIEWERS


def with_distinct_ids(workflow: dict[str, Any]) -> dict[str, Any]:
    """The workflow with other ids inside of its subgraphs: newer pages give new ones to nodes that have the id of a node elsewhere."""
    made = copy.deepcopy(workflow)
    subgraphs = made.get("definitions", {}).get("subgraphs", [])
    more = {one["id"]: 100 * place for place, one in enumerate(subgraphs, 1)}
    for graph in (made, *subgraphs):
        for node in graph["nodes"]:
            node["id"] += more.get(graph.get("id"), 0)
            for proxy in node["properties"].get("proxyWidgets", ()):
                if int(proxy[0]) > 0:
                    proxy[0] = str(int(proxy[0]) + more[node["type"]])
    for one in subgraphs:
        for link in one["links"]:
            for end in ("origin_id", "target_id"):
                if link[end] > 0:
                    link[end] += more[one["id"]]
    return made


def differences(page: HostPage, nodes: NodeTable, workflow: dict[str, Any], *, titles: bool = True) -> list[str]:
    """What our prompt has otherwise than the page's, a line each. A date in a name may change between the two."""
    ours = [convert(workflow, nodes, datetime.now().astimezone()).prompt]
    theirs = what_the_server_reads(page.ask(TO_API, workflow), nodes)
    ours.append(convert(workflow, nodes, datetime.now().astimezone()).prompt)
    if not titles:
        for node in [node for prompt in (theirs, *ours) for node in prompt.values()]:
            del node["_meta"]
    return [] if theirs in ours else list(_lines(ours[0], theirs))


def _lines(ours: Prompt, theirs: Prompt) -> Iterator[str]:
    for id in {**ours, **theirs}:
        if id not in ours or id not in theirs:
            yield f"node {id} is only in {'ours' if id in ours else 'theirs'}"
        elif ours[id] != theirs[id]:
            yield f"node {id}: ours {ours[id]}, theirs {theirs[id]}"


def test_examples(page: HostPage, nodes: NodeTable) -> None:
    assert len(EXAMPLES) == 21
    found = {file.stem: differences(page, nodes, json.loads(file.read_text("utf-8"))) for file in EXAMPLES}
    assert found == {file.stem: [] for file in EXAMPLES}


def test_small_workflows(page: HostPage, page_name: str, nodes: NodeTable) -> None:
    """Each has one thing that is hard to convert: subgraphs, bypassed and muted nodes, reroutes, primitives, texts."""
    found = {}
    for name, workflow in saved_workflows().items():
        workflow["extra"] = {"frontendVersion": "1.32.9" if page_name == HOSTS_OWN else FRONT_END_VERSION}
        try:
            found[name] = differences(page, nodes, with_distinct_ids(workflow))
        except UnreadableWorkflow:  # test_conversion.py knows which
            assert page_name != HOSTS_OWN, name
    assert len(found) > len(saved_workflows()) - 10
    assert {name for name, lines in found.items() if lines} == (set() if page_name == HOSTS_OWN else NEWER), found


@pytest.mark.parametrize("page_name", [HOSTS_OWN], indirect=True)
def test_recorded_prompts_are_the_page_s(page: HostPage) -> None:
    """What the quick tests compare with is what the host's own page makes."""
    workflows = {name: workflow for name, workflow in saved_workflows().items() if name != "date"}
    assert {name: page.ask(TO_API, workflow) for name, workflow in workflows.items()} == recorded()["prompts"]


def official_templates() -> dict[str, Path]:
    """{name: file} of all workflows in ComfyUI's own template packages that are installed."""
    packages = [one for one in metadata.distributions() if one.metadata["Name"].replace("_", "-").startswith(TEMPLATES)]
    files = [Path(str(one.locate_file(file))) for one in packages for file in one.files or () if file.suffix == ".json"]
    return {file.stem: file for file in files if file.parent.name == "templates" and "index" not in file.stem}


@pytest.mark.parametrize("page_name", [HOSTS_OWN], indirect=True)
def test_official_templates(page: HostPage, nodes: NodeTable) -> None:
    """Nodes without a saved title have one from the page's own texts, which nothing but the page reads."""
    same, refused, different = [], {}, {}
    for name, file in sorted(official_templates().items()):
        workflow = json.loads(file.read_text("utf-8"))
        try:
            found = differences(page, nodes, workflow, titles=False)
        except UnreadableWorkflow as error:
            refused[name] = str(error)
            continue
        if found:
            different[name] = found
        else:
            same.append(name)
    print(f"{len(same)} the same, {len(refused)} refused, {len(different)} different")
    assert different == {}
    assert {name: text for name, text in refused.items() if not is_refused_rightly(text, nodes)} == {}
    assert len(same) > 50


def is_refused_rightly(text: str, nodes: NodeTable) -> bool:
    """Whether a refusal names a node that this host does not have, or an input that only the page can make."""
    unknown = re.match(r"The node \S+ (?:'.*' )?\((.+?)\) is not known to this ComfyUI", text)
    if unknown:
        return nodes.get(unknown[1]) is None
    return "is made by the page" in text or "the page that saved the file" in text
