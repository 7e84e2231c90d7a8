"""Describes a workflow: columns of nodes with headings, and a note next to them.

    sheet = Sheet("file_name", note="# Heading ...")
    with sheet.column("1 Load"):
        model = sheet.add("RelayLoadModelFromHub", "Stable Diffusion 1.5", repo_id="...")
    with sheet.column("2 Prompt"):
        prompt = sheet.add("RelayEncodePrompt", "What to paint", model=model, prompt="...")

Where the nodes are placed depends on what they measure on the page: see make_examples.py and layout.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from relay_host.comfyui import HOST_VERSION
from relay_host.page import GroupOnPage, Link, NodeOnPage

from .layout import BETWEEN_GROUPS, TITLE, Connection, Laid

Size = tuple[float, float]

PACK = {"cnr_id": "diffusers-relay", "ver": "0.1.0"}
"""The pack's name and version in ComfyUI's registry: a page without the pack offers to install it."""
HOST = {"cnr_id": "comfy-core", "ver": HOST_VERSION}
FILES: Mapping[str, dict[str, str]] = {
    "v1-5-pruned-emaonly-fp16.safetensors": {
        "name": "v1-5-pruned-emaonly-fp16.safetensors",
        "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
        "directory": "checkpoints",
    }
}
"""Where the files that nodes load are published: a page whose host lacks one offers to download it."""

NOTE = "note"
NOTE_SIZE = (440, 60)
"""The size before its text is measured."""
COLORS = ("#3f789e", "#a1309b", "#b58b2a", "#8a8", "#88a")
"""One for each column in turn, from the page's palette for groups."""
ROUGH_STEP = 1200
ROUGH_COLUMNS = 5
"""The nodes stand apart in a table while they are measured."""
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


@dataclass
class _Node:
    type: str
    title: str
    widgets: dict[str, Any]

    def properties(self) -> dict[str, Any]:
        files = [FILES[value] for value in self.widgets.values() if isinstance(value, str) and value in FILES]
        return {**(PACK if self.type.startswith("Relay") else HOST), **({"models": files} if files else {})}


@dataclass
class Sheet:
    """One workflow. `file` is its file name without a suffix; `note` is Markdown, or "" for none."""

    file: str
    note: str
    links: list[Link] = field(default_factory=list)
    _nodes: dict[str, _Node] = field(default_factory=dict)
    _columns: list[tuple[str, list[str]]] = field(default_factory=list)
    app_inputs: list[tuple[str, str]] = field(default_factory=list)
    """(node, its widget): what the page shows in app mode, and nothing else."""
    app_outputs: list[str] = field(default_factory=list)

    @contextmanager
    def column(self, heading: str) -> Iterator[None]:
        """Puts the nodes that are added inside into one group with this heading."""
        self._columns.append((heading, []))
        yield

    def add(self, type: str, title: str, **inputs: Any) -> Output:
        """Adds a node. Inputs are passed by name: an Output is a link, anything else is a widget's value."""
        name = f"{len(self._nodes) + 1} {type}"
        self.links += [
            (value.node, value.slot, name, key) for key, value in inputs.items() if isinstance(value, Output)
        ]
        widgets = {key: value for key, value in inputs.items() if not isinstance(value, Output)}
        if "seed" in widgets:
            widgets["control_after_generate"] = "fixed"  # the example gives the same picture each time
        self._nodes[name] = _Node(type, title, widgets)
        self._columns[-1][1].append(name)
        return Output(name)

    def as_app(self, *inputs: tuple[Output, str], output: Output) -> None:
        """Makes the workflow an app: in app mode, the page shows only these inputs, in this order, and this output."""
        self.app_inputs = [(node.node, widget) for node, widget in inputs]
        self.app_outputs = [output.node]

    @property
    def groups(self) -> list[list[str]]:
        """The names of the nodes in each column."""
        return [names for _, names in self._columns]

    def preferred_sizes(self) -> dict[str, Size]:
        """All nodes of a column have the same width."""
        sizes: dict[str, Size] = {NOTE: NOTE_SIZE}
        for _, names in self._columns:
            wanted = {name: LEAST_SIZES.get(self._nodes[name].type, (0, 0)) for name in names}
            width = max(wide for wide, _ in wanted.values())
            sizes |= {name: (width, height) for name, (_, height) in wanted.items()}
        return sizes

    def nodes(self, sizes: Mapping[str, Size], spots: Mapping[str, tuple[float, float]] = {}) -> list[NodeOnPage]:
        """The note and the nodes, at `spots`, or apart from each other."""
        note = NodeOnPage(
            NOTE,
            "MarkdownNote",
            (0, TITLE),
            {"": self.note},
            sizes.get(NOTE, NOTE_SIZE),
            title="About this workflow",
            color="#432",
            bgcolor="#000",
        )
        apart = {
            name: (ROUGH_STEP * (1 + number % ROUGH_COLUMNS), ROUGH_STEP * (number // ROUGH_COLUMNS))
            for number, name in enumerate(self._nodes)
        }
        return [
            *([note] if self.note else []),
            *(
                NodeOnPage(
                    name,
                    node.type,
                    spots.get(name, apart[name]),
                    node.widgets,
                    sizes[name],
                    title=node.title,
                    properties=node.properties(),
                )
                for name, node in self._nodes.items()
            ),
        ]

    def connections(self, slot_of: Mapping[str, Mapping[str, int]]) -> list[Connection]:
        """The links, with the numbers of the outputs. slot_of: {node: {output's name: number}}."""
        return [
            Connection(source, slot if isinstance(slot, int) else slot_of[source][slot], target, key)
            for source, slot, target, key in self.links
        ]

    def frames(self, laid: Laid) -> list[GroupOnPage]:
        return [
            GroupOnPage(heading, bounding=frame, color=color)
            for (heading, _), frame, color in zip(self._columns, laid.frames, COLORS)
        ]

    @property
    def left(self) -> float:
        """Where the first group begins: to the right of the note."""
        return NOTE_SIZE[0] + BETWEEN_GROUPS / 2
