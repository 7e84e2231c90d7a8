"""A graph in ComfyUI's API format as values, and the order in which its nodes run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import NoScript

OUTPUTS = ("SaveImage", "PreviewImage")


@dataclass(frozen=True)
class Link:
    node: str
    output: int


@dataclass(frozen=True)
class Node:
    id: str
    type: str
    title: str
    """As on the canvas; the type if it has no other."""
    inputs: Mapping[str, Any]
    """Input -> a :class:`Link` or a value of JSON."""

    @property
    def called(self) -> str:
        """The node in errors."""
        title = f" {self.title!r}" if self.title and self.title != self.type else ""
        return f"The node {self.id}{title} ({self.type})"

    @property
    def links(self) -> list[Link]:
        return [value for value in self.inputs.values() if isinstance(value, Link)]


def read_graph(prompt: Mapping[str, Any]) -> dict[str, Node]:
    """
    Args:
        prompt: {id: {"class_type": ..., "inputs": {...}}}.

    Raises:
        NoScript: it is not a graph in API format, or a link leads nowhere.
    """
    nodes = {}
    for id, entry in prompt.items():
        if not (isinstance(entry, dict) and isinstance(entry.get("class_type"), str)):
            raise NoScript(f"The entry {id!r} is not a node of a graph in API format.")
        inputs = entry.get("inputs")
        meta = entry.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        nodes[str(id)] = Node(
            str(id),
            entry["class_type"],
            title if isinstance(title, str) else entry["class_type"],
            {str(name): _value(value) for name, value in inputs.items()} if isinstance(inputs, dict) else {},
        )
    for node in nodes.values():
        for name, value in node.inputs.items():
            if isinstance(value, Link) and value.node not in nodes:
                raise NoScript(f"{node.called}: {name} is connected to the node {value.node}, which the graph lacks.")
    return nodes


def _value(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and type(value[1]) is int:
        return Link(str(value[0]), value[1])
    if isinstance(value, dict) and set(value) == {"__value__"}:
        return value["__value__"]
    return value


def ends_of(nodes: Mapping[str, Node], chosen: Sequence[str] = ()) -> list[str]:
    """The nodes that a script is written for: the chosen ones, or all that save or show a picture.

    Raises:
        NoScript: a chosen node is not in the graph, or nothing is saved or shown.
    """
    for id in chosen:
        if id not in nodes:
            raise NoScript(f"The graph has no node {id!r}. It has: {', '.join(nodes)}.")
    ends = list(chosen) or [id for id, node in nodes.items() if node.type in OUTPUTS]
    if not ends:
        raise NoScript(
            f"The graph saves and shows no picture, so there is nothing to write. Add one of: {', '.join(OUTPUTS)}."
        )
    return sorted(ends, key=_by_number)


def in_order(nodes: Mapping[str, Node], ends: Iterable[str]) -> list[Node]:
    """The ends and all nodes that lead to them, each after those that it needs.

    Raises:
        NoScript: the links run in a circle.
    """
    order: dict[str, Node] = {}
    for end in ends:
        # an explicit stack, because a chain of nodes can be longer than Python's own
        path: list[str] = [end]
        while path:
            node = nodes[path[-1]]
            missing = [link.node for link in node.links if link.node not in order]
            if not missing:
                order[node.id] = node
                path.pop()
            elif missing[0] in path:
                raise NoScript(f"{nodes[missing[0]].called} needs its own result: the links run in a circle.")
            else:
                path.append(missing[0])
    return list(order.values())


def _by_number(id: str) -> tuple[list[int], str]:
    parts = id.split(":")
    return [int(part) if part.isdecimal() else 0 for part in parts], id
