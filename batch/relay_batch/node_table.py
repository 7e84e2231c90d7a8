"""What a ComfyUI knows about its nodes: the answer of /object_info, read once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BatchError

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
"""The kinds of values that a user types or chooses. An input of any other type takes a link."""
TIMEOUT = 60


@dataclass(frozen=True)
class InputSpec:
    """One input of a node type. `choices` is empty for other types than COMBO, and where the host does not list them."""

    name: str
    type: str
    choices: tuple[Any, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_widget(self) -> bool:
        return self.type in WIDGET_TYPES and not self.settings.get("forceInput")

    @property
    def is_picture(self) -> bool:
        """Whether the input is a picture file in the host's input folder."""
        return bool(self.settings.get("image_upload"))

    @property
    def default(self) -> Any:
        if self.type == "COMBO":
            return self.settings.get("default", self.choices[0] if self.choices else None)
        return self.settings.get("default", {"INT": 0, "FLOAT": 0, "STRING": "", "BOOLEAN": False}.get(self.type))


@dataclass(frozen=True)
class NodeType:
    """One node type: its inputs in the order in which the page shows them."""

    name: str
    title: str
    required: tuple[InputSpec, ...]
    optional: tuple[InputSpec, ...]

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        return self.required + self.optional

    def input(self, name: str) -> InputSpec | None:
        return next((one for one in self.inputs if one.name == name), None)


class NodeTable:
    """All node types of a host. Types are read when they are first asked for: a host may have thousands."""

    def __init__(self, object_info: Mapping[str, Any]):
        self._raw = object_info
        self._read: dict[str, NodeType] = {}

    def get(self, type: str) -> NodeType | None:
        if type not in self._read and type in self._raw:
            self._read[type] = read_node_type(type, self._raw[type])
        return self._read.get(type)


def read_node_type(name: str, raw: Mapping[str, Any]) -> NodeType:
    def group(kind: str) -> tuple[InputSpec, ...]:
        specs = raw.get("input", {}).get(kind) or {}
        ordered = [one for one in raw.get("input_order", {}).get(kind, ()) if one in specs] or list(specs)
        return tuple(read_input(one, specs[one]) for one in ordered)

    return NodeType(name, raw.get("display_name") or name, group("required"), group("optional"))


def read_input(name: str, raw: Any) -> InputSpec:
    """`raw` is [type or list of choices, settings]; the settings may be missing."""
    entry = raw if isinstance(raw, list) else [raw]
    settings = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
    if isinstance(entry[0], list):
        return InputSpec(name, "COMBO", tuple(entry[0]), settings)
    choices = settings.get("options") if entry[0] == "COMBO" else None
    return InputSpec(name, str(entry[0]), tuple(choices or ()), settings)


def load_node_table(source: str) -> NodeTable:
    """The table of a running host (its URL), or of a saved answer of its /object_info (a JSON file)."""
    if source.startswith(("http://", "https://")):
        return NodeTable(_ask(source.rstrip("/").removesuffix("/object_info") + "/object_info"))
    try:
        found = json.loads(Path(source).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BatchError(f"The node table {source} can't be read ({error}).") from error
    if not isinstance(found, dict):
        raise BatchError(f"The node table {source} is not an answer of ComfyUI's /object_info.")
    return NodeTable(found)


def _ask(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as reply:
            return dict(json.load(reply))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise BatchError(
            f"No node table at {url} ({error}). Start ComfyUI, or give --node-table the URL of one that runs, "
            "or a saved answer of its /object_info."
        ) from error
