"""Reads a workflow from a file: a PNG that ComfyUI saved, a file in API format, or a file in the page's UI format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from .errors import UnreadableWorkflow
from .node_table import NodeTable
from .ui_convert import Converted, Prompt, convert


@dataclass(frozen=True)
class Workflow:
    """A prompt in API format, and what the file says about its inputs."""

    prompt: Prompt
    promoted: Mapping[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    """{(id of a subgraph's node, widget): the inputs that it sets}; empty for files in API format."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """{id of a subgraph's node: its title}"""
    app_inputs: tuple[tuple[str, str], ...] = ()
    """(node id, widget) of the inputs that the workflow shows as an app."""


def read_workflow(file: Path, table: NodeTable, now: datetime) -> Workflow:
    """`now` is the time that %date% in a UI file's file names stands for."""
    prompt, ui = _contents(file)
    if prompt is None:
        assert ui is not None
        converted = convert(ui, table, now)
    else:
        _check_prompt(file, prompt, table)
        converted = Converted(prompt)
    return Workflow(converted.prompt, converted.promoted, converted.titles, _app_inputs(ui or {}))


def _contents(file: Path) -> tuple[Prompt | None, dict[str, Any] | None]:
    """The file's prompt in API format and its workflow in UI format, as far as it has them."""
    try:
        start = file.open("rb").read(8)
        if start.startswith(b"\x89PNG"):
            return _in_picture(file)
        found = json.loads(file.read_text("utf-8-sig"))
    except UnidentifiedImageError as error:
        raise UnreadableWorkflow(f"{file} is a broken PNG file.") from error
    except OSError as error:
        raise UnreadableWorkflow(f"The workflow {file} can't be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise UnreadableWorkflow(
            f"{file} is neither a PNG nor JSON ({error}). Give a PNG that ComfyUI saved, or an exported workflow."
        ) from error
    if isinstance(found, dict) and isinstance(found.get("nodes"), list):
        return None, found
    if isinstance(found, dict) and found and all(_is_api_node(one) for one in found.values()):
        return found, None
    raise UnreadableWorkflow(f"{file} is JSON, but no workflow of ComfyUI, in UI or API format.")


def _in_picture(file: Path) -> tuple[Prompt | None, dict[str, Any] | None]:
    with Image.open(file) as picture:
        picture.load()  # texts may stand after the pixels
        texts = {key: value for key, value in picture.info.items() if key in ("prompt", "workflow")}
    found = {key: json.loads(value) for key, value in texts.items() if isinstance(value, str)}
    if not found:
        raise UnreadableWorkflow(
            f"The picture {file} carries no workflow. It was not saved by ComfyUI, or another program removed it."
        )
    return found.get("prompt"), found.get("workflow")


def _is_api_node(entry: Any) -> bool:
    return (
        isinstance(entry, dict) and isinstance(entry.get("class_type"), str) and isinstance(entry.get("inputs"), dict)
    )


def is_link(value: Any) -> bool:
    """Whether an input's value in API format is a link."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _check_prompt(file: Path, prompt: Prompt, table: NodeTable) -> None:
    for id, node in prompt.items():
        if not _is_api_node(node):
            raise UnreadableWorkflow(f"{file}: the node {id} has no class_type or inputs.")
        if table.get(node["class_type"]) is None:
            raise UnreadableWorkflow(
                f"The node {id} ({node['class_type']}) is not known to this ComfyUI. Install the pack that has it."
            )
        for name, value in node["inputs"].items():
            if is_link(value) and value[0] not in prompt:
                raise UnreadableWorkflow(
                    f"{file}: the input {name} of the node {id} ({node['class_type']}) is linked to {value[0]}, "
                    "which is not there."
                )


def _app_inputs(ui: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    listed = ((ui.get("extra") or {}).get("linearData") or {}).get("inputs") or ()
    return tuple((str(one[0]), str(one[1])) for one in listed if isinstance(one, list) and len(one) >= 2)
