"""Messages, tooltips and help pages use the titles on the canvas for the pack's and ComfyUI's nodes, and the ids of inputs."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_dev import layers
from relay_host.comfyui import get_host
from relay_host.paths import ROOT

TITLES = {
    title
    for file in (ROOT / "nodes").glob("*.py")
    for title in re.findall(r'display_name="([A-Z][^"]+)"', file.read_text("utf-8"))
}
MARK = " (Diffusers)"
SHORT = {title.removesuffix(MARK) for title in TITLES if title.endswith(MARK)}
"""Partial titles that name another node or none."""
NO_NODES = ("Load Model", "Load Diffusers ControlNet", "Load Checkpoint (Diffusers)", "Load Model from Hub")
HOST_TITLES = {"Load LoRA", "Apply ControlNet", "Load ControlNet"}
"""The starts of titles of ComfyUI's own nodes, allowed after "ComfyUI's own"."""
SENTENCES = [file for file in layers.pack_files() if file.parts[-2] != "configs"]
PAGES = [*sorted((ROOT / "web" / "docs").glob("*.md")), ROOT / "SECURITY.md", ROOT / "README.md"]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
OF_THE_HOST = re.compile(r"ComfyUI's (?:own )?((?:[A-Z]\w*)(?: [A-Z]\w*)*(?: \((?:for |using )?[A-Z]\w*\))?)")
NO_NODE_OF_THE_HOST = {"CLIP"}
"""Other words that follow "ComfyUI's"."""
BEFORE_A_COLON = re.compile(r"([a-z]\w*(?:, [a-z]\w*)*): ")
CHOICES = {"auto", "none", "default", "compel", "relay_script"}
"""Input values that tooltips explain, placeholders for empty lists, and the command that begins its own messages."""
SET_TO = re.compile(r"\b[Ss]et (\w+) to\b")
NO_INPUTS = {"it", "HF_HOME"}


def wrong_titles(text: str) -> list[str]:
    """Titles in ``text`` that aren't on any canvas."""
    found = [name for name in NO_NODES if re.search(rf"\b{re.escape(name)}\b(?! from Hub)", text)]
    for name in SHORT:
        for match in re.finditer(rf"(?<![\w{{]){re.escape(name)}\b(?!{re.escape(MARK)})", text):
            longer = any(text.startswith(title, match.start()) for title in TITLES if len(title) > len(name))
            host = name in HOST_TITLES and text[: match.start()].endswith("ComfyUI's own ")
            if not longer and not host:
                found.append(name)
    return found


def literals(file: Path) -> Iterator[tuple[int, str]]:
    """The strings in a module that a user may read: without docstrings and single words."""
    tree = ast.parse(file.read_text("utf-8"))
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documents:
            continue
        if " " in node.value:
            yield node.lineno, node.value


def inputs() -> set[str]:
    """The ids of all inputs."""
    calls = [
        node
        for file in (ROOT / "nodes").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Input"
    ]
    return {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}  # type: ignore[misc]


def titles_of_the_host() -> set[str]:
    """Titles in ComfyUI's source; a node without one is called by its class."""
    found: set[str] = set()
    for file in (get_host() / "nodes.py", *sorted((get_host() / "comfy_extras").glob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if (
                isinstance(node, ast.keyword)
                and node.arg in ("display_name", "node_id")
                and isinstance(node.value, ast.Constant)
            ):
                found.add(str(node.value.value))
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                found |= {
                    str(key.value)
                    for key, value in pairs
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Name)
                }
                found |= {str(value.value) for value in node.values if isinstance(value, ast.Constant)}
    return found


@pytest.mark.parametrize("file", SENTENCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_messages_and_tooltips_name_nodes_by_their_titles(file: Path) -> None:
    wrong = [
        (line, titles, text) for line, text in literals(file) if (titles := wrong_titles(text)) and text not in TITLES
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_help_pages_name_nodes_by_their_titles(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    assert wrong_titles(text) == []


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_notes_of_examples_name_nodes_by_their_titles(file: Path) -> None:
    notes = [node for node in json.loads(file.read_text("utf-8"))["nodes"] if node["type"] == "MarkdownNote"]
    assert notes
    assert [wrong_titles(str(node["widgets_values"])) for node in notes] == [[]] * len(notes)


def test_messages_name_inputs_by_their_ids() -> None:
    known = inputs()
    assert {"vae_file", "prompt_b", "denoising_end", "matmul"} <= known
    wrong = []
    for file in SENTENCES:
        for line, text in literals(file):
            start = BEFORE_A_COLON.match(text)
            named = set(start[1].split(", ")) - CHOICES if start else set()
            named |= set(SET_TO.findall(text)) - NO_INPUTS
            wrong += [(file.name, line, name) for name in sorted(named - known)]
    assert wrong == []


def test_nodes_of_comfyui_are_called_by_their_titles() -> None:
    known = titles_of_the_host() | NO_NODE_OF_THE_HOST
    assert {"KSampler", "VAE Decode", "Save LoRA Weights", "Upscale Latent", "ConditioningAverage"} <= known
    texts = [(page.name, page.read_text("utf-8")) for page in PAGES]
    texts += [(file.name, text) for file in SENTENCES for _, text in literals(file)]
    named = {(name, title) for name, text in texts for title in OF_THE_HOST.findall(" ".join(text.split()))}
    assert len(named) > 5
    assert [pair for pair in sorted(named) if pair[1] not in known] == []


def test_a_wrong_title_is_seen() -> None:
    assert wrong_titles("Load it with Load Diffusers ControlNet.") == ["Load Diffusers ControlNet"]
    assert wrong_titles("Use Load Model.") == ["Load Model"]
    assert wrong_titles("Connect Apply ControlNet, or Apply ControlNet (Diffusers).") == ["Apply ControlNet"]
    assert wrong_titles("Load Diffusers Model from Hub, Load ControlNet from Hub (Diffusers), Set VAE") == []
    assert wrong_titles("or ComfyUI's own Load LoRA") == []
