"""Describes a workflow: columns of nodes with headings, and a note next to them.

    sheet = Sheet("file_name", note="# Heading ...")
    with sheet.column("1 Load"):
        model = sheet.add("RelayLoadModelFromHub", "Stable Diffusion 1.5", repo_id="...")
    with sheet.column("2 Prompt"):
        prompt = sheet.add("RelayEncodePrompt", "What to paint", model=model, prompt="...")

The layout depends on the nodes' sizes, which only the page knows: build the nodes there, read their sizes, and call `placed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from relay_host.page import GroupOnPage, Link, NodeOnPage

Size = tuple[float, float]

NOTE = "note"
NOTE_SIZE = (440, 60)
"""The size before its text is measured."""
TITLE_HEIGHT = 30
"""The page draws a node's title above its position."""
NODE_GAP = 70
COLUMN_GAP = 100
GROUP_TOP = 84
"""From the upper edge of a group to its first node's position, as `HostPage.build` frames it."""
COLORS = ("#3f789e", "#a1309b", "#b58b2a", "#8a8", "#88a")
"""One for each column in turn, from the page's palette for groups."""
LEAST_SIZES: Mapping[str, Size] = {
    "LoadImage": (320, 400),
    "ImageScale": (320, 0),
    "RelayLoadModelFromHub": (400, 0),
    "RelayLoadControlNetFromHub": (400, 0),
    "CheckpointLoaderSimple": (400, 0),
    "RelayEncodePrompt": (420, 300),
    "RelayKandinskyPrior": (420, 420),
    "RelayLoadLora": (400, 0),
    "RelayApplyControlNet": (340, 0),
    "RelayTextToImage": (340, 0),
    "RelayImageToImage": (340, 0),
    "RelayInpaint": (340, 0),
    "ImageCompositeMasked": (300, 0),
    "RelayLatentUpscale": (340, 0),
    "RelaySuperResolution": (340, 0),
    "KSampler": (340, 0),
    "RelayDecode": (260, 0),
    "VAEDecode": (260, 0),
    "ImageBatch": (240, 0),
    "RelayImageGrid": (260, 0),
    "RelaySetScheduler": (400, 0),
    "SaveImage": (420, 480),
    "PreviewImage": (300, 340),
}


@dataclass(frozen=True)
class Output:
    """An output of a node of the sheet, by name or number."""

    node: str
    slot: str | int = 0

    def __getitem__(self, slot: str | int) -> Output:
        return Output(self.node, slot)


@dataclass(frozen=True)
class Placed:
    """The arguments of `HostPage.build`."""

    nodes: list[NodeOnPage]
    links: list[Link]
    groups: list[GroupOnPage]


@dataclass
class _Node:
    type: str
    title: str
    row: int | None
    widgets: dict[str, Any]
    extra_height: float


@dataclass
class Sheet:
    """One example workflow. `file` is its file name without a suffix; `note` is Markdown."""

    file: str
    note: str
    links: list[Link] = field(default_factory=list)
    _nodes: dict[str, _Node] = field(default_factory=dict)
    _columns: list[tuple[str, list[str]]] = field(default_factory=list)

    @contextmanager
    def column(self, heading: str) -> Iterator[None]:
        """Puts the nodes that are added inside below each other, in a group with this heading."""
        self._columns.append((heading, []))
        yield

    def add(self, type: str, title: str, *, row: int | None = None, extra_height: float = 0, **inputs: Any) -> Output:
        """Adds a node. Inputs are passed by name: an Output is a link, anything else is a widget's value.

        Nodes with the same `row` in different columns start at the same height. `extra_height` is space for the node's messages during a run.
        """
        name = f"{len(self._nodes) + 1} {type}"
        self.links += [
            (value.node, value.slot, name, key) for key, value in inputs.items() if isinstance(value, Output)
        ]
        widgets = {key: value for key, value in inputs.items() if not isinstance(value, Output)}
        if "seed" in widgets:
            widgets["control_after_generate"] = "fixed"  # the example gives the same picture each time
        self._nodes[name] = _Node(type, title, row, widgets, extra_height)
        self._columns[-1][1].append(name)
        return Output(name)

    def placed(self, sizes: Mapping[str, Size] | None = None) -> Placed:
        """The workflow laid out for the `sizes` of its nodes. Without `sizes`, all nodes are in one place, so that the page can measure them."""
        spots = self._spots(sizes) if sizes else dict.fromkeys(self._nodes, (0.0, 0.0))
        note = NodeOnPage(
            NOTE,
            "MarkdownNote",
            (0, -GROUP_TOP + TITLE_HEIGHT),
            {"": self.note},
            sizes[NOTE] if sizes else NOTE_SIZE,
            title="About this workflow",
            color="#432",
            bgcolor="#000",
        )
        nodes = [
            NodeOnPage(name, node.type, spots[name], node.widgets, sizes[name] if sizes else None, node.title)
            for name, node in self._nodes.items()
        ]
        groups = [
            GroupOnPage(heading, around=tuple(names), color=color)
            for (heading, names), color in zip(self._columns, COLORS)
        ]
        return Placed([note, *nodes], self.links, groups if sizes else [])

    def wanted_sizes(self, least: Mapping[str, Size]) -> dict[str, Size]:
        """The sizes to use, given the smallest size of each node on the page: all nodes in a column have the same width."""
        sizes = {NOTE: least[NOTE]}
        for _, names in self._columns:
            preferred = [LEAST_SIZES.get(self._nodes[name].type, (0, 0)) for name in names]
            width = max(*(least[name][0] for name in names), *(size[0] for size in preferred))
            for name, size in zip(names, preferred):
                sizes[name] = (width, max(least[name][1], size[1]) + self._nodes[name].extra_height)
        return sizes

    def _spots(self, sizes: Mapping[str, Size]) -> dict[str, tuple[float, float]]:
        lefts, left = [], sizes[NOTE][0] + COLUMN_GAP
        for _, names in self._columns:
            lefts.append(left)
            left += max(sizes[name][0] for name in names) + COLUMN_GAP
        spots: dict[str, tuple[float, float]] = {}
        waiting = [list(names) for _, names in self._columns]
        below = [0.0] * len(waiting)

        def place(column: int, top: float) -> None:
            name = waiting[column].pop(0)
            spots[name] = (lefts[column], top)
            below[column] = top + sizes[name][1] + NODE_GAP

        rows = sorted({node.row for node in self._nodes.values() if node.row is not None})
        for row in [*rows, None]:
            for column, names in enumerate(waiting):
                while names and (row is None or self._nodes[names[0]].row is None):
                    place(column, below[column])
            level = [column for column, names in enumerate(waiting) if names and self._nodes[names[0]].row == row]
            top = max((below[column] for column in level), default=0)
            for column in level:
                place(column, top)
        return spots
