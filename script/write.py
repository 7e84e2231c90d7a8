"""Writes a graph as a diffusers script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import NoScript
from .graph import Node, ends_of, in_order, read_graph
from .known_models import Shelf
from .page import Page
from .script import Plan, Script
from .stubs import write_stub
from .writers.table import WRITERS

GRAPH_MARK = "# relay-graph: "
"""Begins the last line of a script, which holds the graph."""
SUMMARY = "A ComfyUI graph as a diffusers script, written by Diffusers Relay."


def write_script(
    prompt: Mapping[str, Any],
    shelf: Shelf | None = None,
    *,
    chosen: Sequence[str] = (),
    stubs: bool = False,
    workflow: Mapping[str, Any] | None = None,
) -> str:
    """A Python file that paints what the graph paints, with diffusers and without ComfyUI.

    Args:
        prompt: the graph in API format.
        shelf: where models are looked up.
        chosen: the nodes to write it for; empty: all that save or show a picture.
        stubs: a node that can't be written becomes a function that raises, instead of an error.
        workflow: the same graph as the page saves it, for the way back.

    Raises:
        NoScript: the graph has a node, an input or a model that can't be written.
    """
    nodes = read_graph(prompt)
    order = in_order(nodes, ends_of(nodes, chosen))
    used = {node.id: node for node in order}
    shelf = shelf or Shelf()
    # The first writing finds out which pipelines there are and which LoRAs; the second one can begin with them.
    _, plan = _written(order, used, shelf, Plan(), stubs)
    page, _ = _written(order, used, shelf, plan, stubs)
    return page.text(graph_line(prompt, workflow))


def _written(
    order: Sequence[Node], nodes: Mapping[str, Node], shelf: Shelf, plan: Plan, stubs: bool
) -> tuple[Page, Plan]:
    page = Page(SUMMARY)
    script = Script(page, nodes, shelf, plan)
    for node in order:
        writer = WRITERS.get(node.type)
        if writer is None:
            if not stubs:
                raise NoScript(
                    f"{node.called} can't be written as a script. On the command line, --stubs makes it a function for you to fill in."
                )
            script.outputs[node.id] = write_stub(script, node)
            continue
        inputs = script.begin(node, writer.display_name)
        script.outputs[node.id] = writer.write(inputs, script)
        inputs.check_all_read()
    return page, script.plan


def graph_line(prompt: Mapping[str, Any], workflow: Mapping[str, Any] | None) -> str:
    """The graph as a comment of one line: JSON in ASCII has no line break."""
    content: dict[str, Any] = {"prompt": prompt}
    if workflow is not None:
        content["workflow"] = workflow
    return GRAPH_MARK + json.dumps(content, ensure_ascii=True, separators=(",", ":"))


def graph_in(text: str) -> dict[str, Any] | None:
    """What :func:`graph_line` wrote at the end of a script; None if there is no such line."""
    lines = [line for line in text.splitlines() if line.startswith(GRAPH_MARK)]
    if not lines:
        return None
    try:
        found = json.loads(lines[-1][len(GRAPH_MARK) :])
    except ValueError as error:
        raise NoScript(f"The graph at the end of the script is damaged ({error}).") from error
    return found if isinstance(found, dict) else None
