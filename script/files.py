"""Reads a graph from a file: a PNG that ComfyUI saved, a file in API format, or a script that this pack wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import NoScript
from .write import GRAPH_MARK, graph_in


@dataclass(frozen=True)
class Found:
    prompt: dict[str, Any]
    """In API format."""
    workflow: dict[str, Any] | None = None
    """As the page saves it."""


def read_file(file: Path) -> Found:
    """
    Raises:
        NoScript: the file can't be read, or holds no graph.
    """
    try:
        start = file.open("rb").read(8)
        if start.startswith(b"\x89PNG"):
            return _in_picture(file)
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NoScript(
            f"{file} can't be read ({error}). Give a PNG that ComfyUI saved, or an exported workflow."
        ) from error
    if GRAPH_MARK in text and (found := graph_in(text)) is not None:
        return _checked(file, found.get("prompt"), found.get("workflow"))
    try:
        content = json.loads(text)
    except ValueError as error:
        raise NoScript(
            f"{file} is neither a PNG nor JSON ({error}). Give a PNG that ComfyUI saved, or an exported workflow."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        raise NoScript(
            f"{file} is in the form in which the page saves a workflow, and only the page can read that. Use a picture that ComfyUI "
            'saved from it, or export it with "Export (API)".'
        )
    return _checked(file, content, None)


def _in_picture(file: Path) -> Found:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            picture.load()  # texts may stand after the pixels
            texts = {key: value for key, value in picture.info.items() if key in ("prompt", "workflow")}
        found = {key: json.loads(value) for key, value in texts.items() if isinstance(value, str)}
    except (OSError, ValueError, SyntaxError) as error:
        raise NoScript(f"{file} is a broken PNG, or what it says about its workflow is ({error}).") from error
    if "prompt" not in found:
        raise NoScript(f"{file} holds no graph. It was not saved by ComfyUI, or another program removed the graph.")
    return _checked(file, found["prompt"], found.get("workflow"))


def _checked(file: Path, prompt: Any, workflow: Any) -> Found:
    is_graph = (
        isinstance(prompt, dict)
        and prompt
        and all(isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in prompt.values())
    )
    if not is_graph:
        raise NoScript(f"{file} holds no graph of ComfyUI in API format.")
    return Found(prompt, workflow if isinstance(workflow, dict) else None)
