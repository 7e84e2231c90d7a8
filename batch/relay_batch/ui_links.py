"""Where an input's value comes from: links followed through muted and bypassed nodes, reroutes and the borders of subgraphs."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UnreadableWorkflow
from .ui_graph import BYPASSED, FROM_OUTSIDE, MUTED, Link, Scope, Slot, UiNode

REROUTE, PRIMITIVE = "Reroute", "PrimitiveNode"


@dataclass(frozen=True)
class FromNode:
    """The output of a node that runs."""

    id: str
    output: int


@dataclass(frozen=True)
class FromPromoted:
    """The widget that a subgraph's node shows for one of its inputs."""

    scope: Scope
    """The scope inside of the subgraph."""
    input: int


Source = FromNode | FromPromoted | None


def source_of(scope: Scope, slot: Slot) -> Source:
    """Where the value of an input comes from; None if from nowhere."""
    return _follow(scope, slot.link, slot.type, frozenset())


def _follow(scope: Scope, link_id: int | None, type: str, seen: frozenset[tuple[str, int]]) -> Source:
    link = scope.graph.links.get(link_id) if link_id is not None else None
    if link is None:
        return None
    assert link_id is not None
    if (scope.path, link_id) in seen:
        raise UnreadableWorkflow(f"The links of {scope.graph.name} run in a circle (link {link_id}).")
    seen |= {(scope.path, link_id)}
    if link.source == FROM_OUTSIDE:
        return _through_border(scope, link, type, seen)
    node = scope.graph.nodes.get(link.source)
    return None if node is None else _from_output(scope, node, link.output, type, seen)


def _through_border(scope: Scope, link: Link, type: str, seen: frozenset[tuple[str, int]]) -> Source:
    assert scope.parent is not None
    outside = outside_slot(scope, link.output)
    if outside is not None and outside.link is not None:
        return _follow(scope.parent, outside.link, type, seen)
    return FromPromoted(scope, link.output) if promoted_target(scope, link.output) is not None else None


def _from_output(scope: Scope, node: UiNode, output: int, type: str, seen: frozenset[tuple[str, int]]) -> Source:
    if node.mode == MUTED and scope.inside(node) is None:
        return None
    if node.mode == BYPASSED:
        at = _bypass_input(node, output, type)
        return None if at is None else _follow(scope, node.inputs[at].link, type, seen)
    if node.type == REROUTE:
        return _follow(scope, node.inputs[0].link, type, seen) if node.inputs else None
    if node.type == PRIMITIVE:
        return None  # the primitive's value is written into the widget
    inside = scope.inside(node)
    if inside is not None:
        outputs = inside.graph.outputs
        return _follow(inside, outputs[output].link, type, seen) if output < len(outputs) else None
    return FromNode(scope.id_of(node), output)


def _bypass_input(node: UiNode, output: int, type: str) -> int | None:
    """The input that a bypassed node passes on: the one beside the output if its type fits, else the first of that type."""
    order = [output, *range(len(node.inputs))] if output < len(node.inputs) else range(len(node.inputs))
    return next((at for at in order if node.inputs[at].type == type), None)


def outside_slot(scope: Scope, input: int) -> Slot | None:
    """The slot of a subgraph's node for one of the subgraph's own inputs."""
    assert scope.node is not None
    name = scope.graph.inputs[input].name if input < len(scope.graph.inputs) else ""
    slots = scope.node.inputs
    if input < len(slots) and slots[input].name == name:
        return slots[input]
    return next((slot for slot in slots if slot.name == name), None)


def promoted_target(scope: Scope, input: int) -> tuple[UiNode, Slot] | None:
    """The widget inside of a subgraph that one of the subgraph's own inputs sets, if it sets one."""
    for link in scope.graph.links.values():
        if link.source == FROM_OUTSIDE and link.output == input:
            node = scope.graph.nodes.get(link.target)
            if node is not None and link.input < len(node.inputs) and node.inputs[link.input].widget:
                return node, node.inputs[link.input]
    return None
