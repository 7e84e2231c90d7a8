"""The value of every widget of a workflow in UI format: as saved, through primitives, and on the nodes of subgraphs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from .errors import UnreadableWorkflow
from .node_table import NodeTable
from .ui_graph import Scope, UiNode
from .ui_links import PRIMITIVE, REROUTE, promoted_target
from .ui_text import filled
from .ui_widgets import widget_values

OWN = "-1"
"""In the list of a subgraph node's widgets: a widget that one of its inputs has."""


class Values:
    """The widgets' values of all nodes. `now` is the time that %date% stands for."""

    def __init__(self, root: Scope, table: NodeTable, now: datetime):
        self.root = root
        self.table = table
        self.now = now
        self._read: dict[str, dict[str, Any]] = {}
        self._written: dict[tuple[str, str], Any] = {}
        """{(node id, widget): the value of the primitive that is linked to it}"""
        for scope, node in root.all_nodes():
            if node.type == PRIMITIVE and isinstance(node.values, list) and node.values:
                self._write(scope, node, node.values[0])

    def of(self, scope: Scope, node: UiNode) -> dict[str, Any]:
        """{widget: value} of a node of the host."""
        id = scope.id_of(node)
        if id not in self._read:
            type = self.table.get(node.type)
            found = {} if type is None else widget_values(node, type, scope.called(node))
            self._read[id] = {name: self._written.get((id, name), value) for name, value in found.items()}
        return self._read[id]

    def promoted(self, inside: Scope, input: int) -> Any:
        """The value that a subgraph's node has for one of the subgraph's inputs: its own, else that of the widget inside."""
        assert inside.parent is not None and inside.node is not None
        name = inside.graph.inputs[input].name
        written = (inside.parent.id_of(inside.node), name)
        if written in self._written:
            return self._written[written]
        places = list(_places(inside))
        at = places.index((OWN, name)) if (OWN, name) in places else len(places)
        if isinstance(inside.node.values, list) and at < len(inside.node.values):
            return inside.node.values[at]
        target = promoted_target(inside, input)
        assert target is not None
        node, slot = target
        deeper = inside.inside(node)
        if deeper is None:
            return self.of(inside, node).get(slot.widget)
        own = next((at for at, one in enumerate(deeper.graph.inputs) if one.name == slot.name), None)
        return None if own is None else self.promoted(deeper, own)

    def as_text(self, called: str, widget: str) -> str | None:
        """The value that %called.widget% stands for: by the type that the page saved, else by the title."""
        nodes = list(self.root.all_nodes())
        named = [one for one in nodes if one[1].properties.get("Node name for S&R") == called]
        named = named or [one for one in nodes if self._title(one[1]) == called]
        if not named:
            return None
        try:
            found = self.of(*named[0])
        except UnreadableWorkflow:
            return None
        return _as_script_text(found[widget]) if widget in found else None

    def _title(self, node: UiNode) -> str:
        type = self.table.get(node.type)
        return node.title or (type.title if type is not None else node.type)

    def _write(self, scope: Scope, primitive: UiNode, value: Any) -> None:
        for target, name in _written_by(scope, primitive):
            is_text = isinstance(value, str) and primitive.outputs[0].type == "STRING"
            self._written[(scope.id_of(target), name)] = filled(value, self.as_text, self.now) if is_text else value
            self._read.clear()


def _written_by(scope: Scope, node: UiNode) -> Iterator[tuple[UiNode, str]]:
    """The widgets that a primitive is linked to, directly or over reroutes."""
    for link in scope.graph.links.values():
        target = scope.graph.nodes.get(link.target) if link.source == node.id else None
        if target is None:
            continue
        if target.type == REROUTE:
            yield from _written_by(scope, target)
        elif link.input < len(target.inputs) and target.inputs[link.input].widget:
            yield target, target.inputs[link.input].widget


def proxies(node: UiNode) -> Iterator[tuple[str, str]]:
    """(OWN or the inner node's id, widget) of the widgets that a subgraph's node shows without an input."""
    for entry in node.properties.get("proxyWidgets") or ():
        yield str(entry[0]), str(entry[1])


def _places(inside: Scope) -> Iterator[tuple[str, str]]:
    """(OWN or the inner node's id, widget) for each saved value of a subgraph's node."""
    assert inside.node is not None
    own = [(OWN, slot.name) for at, slot in enumerate(inside.graph.inputs) if promoted_target(inside, at) is not None]
    listed = list(proxies(inside.node))
    yield from (one for one in own if one not in listed)
    yield from listed


def placed_values(inside: Scope) -> Iterator[tuple[str, str, Any]]:
    """(inner node's id, widget, value that the subgraph's node has for it) of the widgets that it shows without an input."""
    assert inside.node is not None
    values = inside.node.values if isinstance(inside.node.values, list) else []
    for (inner, widget), value in zip(_places(inside), values):
        if inner != OWN:
            yield inner, widget, value


def _as_script_text(value: Any) -> str:
    """A value as JavaScript writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)
