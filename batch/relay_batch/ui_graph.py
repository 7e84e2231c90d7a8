"""A workflow in the page's UI format as values: graphs, nodes, slots and links, subgraphs included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import UnreadableWorkflow

MUTED, BYPASSED = 2, 4
FROM_OUTSIDE, TO_OUTSIDE = -10, -20
"""The ids of a subgraph's own input and output."""


@dataclass(frozen=True)
class Slot:
    """An input or output of a node. `widget` is the name of the widget that an input belongs to, or empty."""

    name: str
    type: str
    link: int | None = None
    widget: str = ""


@dataclass(frozen=True)
class Link:
    source: int
    output: int
    target: int
    input: int


@dataclass(frozen=True)
class UiNode:
    id: int
    type: str
    title: str
    mode: int
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    values: list[Any] | dict[str, Any]
    properties: Mapping[str, Any]

    @property
    def runs(self) -> bool:
        return self.mode not in (MUTED, BYPASSED)


@dataclass(frozen=True)
class UiGraph:
    """A graph: the workflow itself, or what is inside of a subgraph. `inputs` and `outputs` are a subgraph's own slots;
    an output's `link` is the link that ends there, an input's the first that begins there."""

    name: str
    nodes: Mapping[int, UiNode]
    links: Mapping[int, Link]
    inputs: tuple[Slot, ...] = ()
    outputs: tuple[Slot, ...] = ()


@dataclass(frozen=True)
class Scope:
    """A graph where it is used. A subgraph that is used twice has two scopes."""

    graph: UiGraph
    subgraphs: Mapping[str, UiGraph]
    path: str = ""
    parent: Scope | None = None
    node: UiNode | None = None
    """The node in `parent` that stands for this scope."""
    _inside: dict[int, Scope] = field(default_factory=dict, compare=False)

    def id_of(self, node: UiNode) -> str:
        """The node's id in API format: "9:4" is node 4 in the subgraph of node 9."""
        return f"{self.path}{node.id}"

    def called(self, node: UiNode) -> str:
        """The node in errors."""
        title = f" {node.title!r}" if node.title and node.title != node.type else ""
        return f"The node {self.id_of(node)}{title} ({node.type})"

    def inside(self, node: UiNode) -> Scope | None:
        """The scope of a subgraph's node, else None."""
        if node.type not in self.subgraphs:
            return None
        if node.id not in self._inside:
            if node.type in self.types_above():
                raise UnreadableWorkflow(f"The subgraph {self.subgraphs[node.type].name} contains itself.")
            graph = self.subgraphs[node.type]
            self._inside[node.id] = Scope(graph, self.subgraphs, f"{self.id_of(node)}:", self, node)
        return self._inside[node.id]

    def types_above(self) -> Iterator[str]:
        scope: Scope | None = self
        while scope is not None and scope.node is not None:
            yield scope.node.type
            scope = scope.parent

    def all_nodes(self) -> Iterator[tuple[Scope, UiNode]]:
        """Each node with its scope, those inside of subgraphs included."""
        for node in self.graph.nodes.values():
            yield self, node
            inside = self.inside(node)
            if inside is not None:
                yield from inside.all_nodes()


def read_ui_workflow(workflow: Mapping[str, Any]) -> Scope:
    definitions = (workflow.get("definitions") or {}).get("subgraphs") or ()
    subgraphs = {str(one["id"]): _read_graph(one, str(one.get("name") or one["id"])) for one in definitions}
    return Scope(_read_graph(workflow, "the workflow"), subgraphs)


def _read_graph(raw: Mapping[str, Any], name: str) -> UiGraph:
    nodes = [_read_node(one) for one in raw.get("nodes") or ()]
    links = dict(_read_link(one) for one in raw.get("links") or () if one is not None)
    own = {kind: tuple(_read_own_slot(one) for one in _own_slots(raw, kind)) for kind in ("inputs", "outputs")}
    return UiGraph(name, {node.id: node for node in nodes}, links, own["inputs"], own["outputs"])


def _own_slots(raw: Mapping[str, Any], kind: str) -> list[Any]:
    return list(raw.get(kind) or ()) if "inputNode" in raw else []


def _read_own_slot(raw: Mapping[str, Any]) -> Slot:
    links = raw.get("linkIds") or [None]
    return Slot(str(raw.get("name", "")), str(raw.get("type", "*")), links[0])


def _read_node(raw: Mapping[str, Any]) -> UiNode:
    values = raw.get("widgets_values")
    return UiNode(
        id=int(raw["id"]),
        type=str(raw["type"]),
        title=str(raw.get("title") or ""),
        mode=int(raw.get("mode") or 0),
        inputs=tuple(_read_slot(one) for one in raw.get("inputs") or ()),
        outputs=tuple(_read_slot(one) for one in raw.get("outputs") or ()),
        values=dict(values) if isinstance(values, dict) else list(values or ()),
        properties=raw.get("properties") or {},
    )


def _read_slot(raw: Mapping[str, Any]) -> Slot:
    link = raw.get("link")
    widget = (raw.get("widget") or {}).get("name", "")
    return Slot(str(raw.get("name", "")), str(raw.get("type", "*")), None if link is None else int(link), str(widget))


def _read_link(raw: Any) -> tuple[int, Link]:
    """A link is a list in the workflow itself, and an object in subgraphs and in files of version 1."""
    if isinstance(raw, Mapping):
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        raw = [raw[key] for key in keys]
    return int(raw[0]), Link(int(raw[1]), int(raw[2]), int(raw[3]), int(raw[4]))
