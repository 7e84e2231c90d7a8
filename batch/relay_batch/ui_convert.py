"""Turns a workflow in the page's UI format into API format, as the page does when it queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .errors import UnreadableWorkflow
from .node_table import NodeTable, NodeType
from .ui_graph import Scope, UiNode, read_ui_workflow
from .ui_links import PRIMITIVE, REROUTE, FromNode, FromPromoted, source_of
from .ui_text import FILE_NAME, FILE_NAME_NODES, filled, has_choice, without_comments
from .ui_values import OWN, Values, proxies
from .ui_versions import check_subgraphs

Prompt = dict[str, dict[str, Any]]
"""A workflow in API format: {node id: {"class_type": ..., "inputs": {...}, "_meta": {"title": ...}}}."""

PAGE_ONLY = ("Note", "MarkdownNote", REROUTE, PRIMITIVE)
"""Nodes that exist on the page and not in a prompt."""
GROUP_NODES = ("workflow>", "workflow/")


@dataclass(frozen=True)
class Converted:
    """A prompt, and which inputs the widgets of subgraphs' nodes set."""

    prompt: Prompt
    promoted: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    """{(id of the subgraph's node, widget): [(node id, input)]}"""
    titles: dict[str, str] = field(default_factory=dict)
    """{id of a subgraph's node: its title}"""


def convert(workflow: Mapping[str, Any], table: NodeTable, now: datetime) -> Converted:
    """`now` is the time that %date% in file names stands for."""
    root = read_ui_workflow(workflow)
    done = Converted({})
    values = Values(root, table, now)
    check_subgraphs(workflow, root, values)
    for scope, node in root.all_nodes():
        inside = scope.inside(node)
        if inside is not None:
            done.titles[scope.id_of(node)] = node.title or inside.graph.name
            _note_proxies(done, inside)
        elif node.runs and node.type not in PAGE_ONLY:
            _convert_node(done, scope, node, _type_of(scope, node, table), values)
    for entry in done.prompt.values():
        _drop_links_to_nowhere(entry["inputs"], done.prompt)
    if not done.prompt:
        raise UnreadableWorkflow("The workflow has no node that runs.")
    _keep_existing(done)
    return done


def _type_of(scope: Scope, node: UiNode, table: NodeTable) -> NodeType:
    found = table.get(node.type)
    if found is not None:
        return found
    if node.type.startswith(GROUP_NODES):
        raise UnreadableWorkflow(
            f"{scope.called(node)} is an old group node, which can't be converted. Turn it into a subgraph on the page."
        )
    raise UnreadableWorkflow(
        f"{scope.called(node)} is not known to this ComfyUI. Install the pack that has it; if it is a node that only "
        'the page has, export the workflow with "Export (API)" and use that file.'
    )


def _convert_node(done: Converted, scope: Scope, node: UiNode, type: NodeType, values: Values) -> None:
    own_id = scope.id_of(node)
    inputs: dict[str, Any] = {}
    for name, value in values.of(scope, node).items():
        inputs[name] = _as_queued(scope, node, type, name, value, values)
    for slot in node.inputs:
        source = source_of(scope, slot)
        if isinstance(source, FromNode):
            inputs[slot.name] = [source.id, source.output]
        elif isinstance(source, FromPromoted):
            inputs[slot.name] = _wrapped(values.promoted(source.scope, source.input))
            _note_promoted(done, source, own_id, slot.name)
    title = node.title or type.title
    done.prompt[own_id] = {"inputs": inputs, "class_type": node.type, "_meta": {"title": title}}


def _as_queued(scope: Scope, node: UiNode, type: NodeType, name: str, value: Any, values: Values) -> Any:
    if not isinstance(value, str):
        return _wrapped(value)
    spec = type.input(name)
    if spec is not None and spec.settings.get("dynamicPrompts"):
        if has_choice(value):
            raise UnreadableWorkflow(
                f"{scope.called(node)}: {name} has a random choice ({{a|b}}), which would differ in every run. "
                "Write one of them, and set the others by a column of a table."
            )
        return without_comments(value)
    if name == FILE_NAME and node.type in FILE_NAME_NODES:
        return filled(value, values.as_text, values.now)
    return value


def _wrapped(value: Any) -> Any:
    """A list would be taken for a link."""
    return {"__value__": value} if isinstance(value, list) else value


def _drop_links_to_nowhere(inputs: dict[str, Any], prompt: Prompt) -> None:
    for name in [name for name, value in inputs.items() if isinstance(value, list) and value[0] not in prompt]:
        del inputs[name]


def _note_promoted(done: Converted, source: FromPromoted, id: str, input: str) -> None:
    """An input that is promoted through several borders can be set at each of them that has no link."""
    scope = source.scope
    assert scope.parent is not None and scope.node is not None
    key = (scope.parent.id_of(scope.node), scope.graph.inputs[source.input].name)
    done.promoted.setdefault(key, []).append((id, input))


def _note_proxies(done: Converted, inside: Scope) -> None:
    assert inside.parent is not None and inside.node is not None
    for inner, widget in proxies(inside.node):
        if inner != OWN:
            key = (inside.parent.id_of(inside.node), widget)
            done.promoted.setdefault(key, []).append((f"{inside.path}{inner}", widget))


def _keep_existing(done: Converted) -> None:
    """Leaves out promoted widgets of nodes that don't run, and resolves widgets that are promoted again."""
    for key, targets in list(done.promoted.items()):
        reached = [end for target in targets for end in done.promoted.get(target, [target])]
        kept = [one for one in reached if one[1] in done.prompt.get(one[0], {}).get("inputs", {})]
        done.promoted[key] = kept
    for key in [key for key, targets in done.promoted.items() if not targets]:
        del done.promoted[key]
