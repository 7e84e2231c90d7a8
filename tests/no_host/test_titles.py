"""Messages, tooltips and help pages call a node by its title as it stands on the canvas."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_dev import layers
from relay_host.paths import ROOT

TITLES = {
    title
    for file in (ROOT / "nodes").glob("*.py")
    for title in re.findall(r'display_name="([A-Z][^"]+)"', file.read_text("utf-8"))
}
MARK = " (Diffusers)"
SHORT = {title.removesuffix(MARK) for title in TITLES if title.endswith(MARK)}
"""Titles of which a part would be another node's, or none's."""
NO_NODES = ("Load Model", "Load Diffusers ControlNet", "Load Checkpoint (Diffusers)", "Load Model from Hub")
HOST_TITLES = {"Load LoRA"}
"""Of ComfyUI's own nodes: they are meant where the words before are "ComfyUI's own"."""
SENTENCES = [file for file in layers.pack_files() if file.parts[-2] != "configs"]
PAGES = [*sorted((ROOT / "web" / "docs").glob("*.md")), ROOT / "SECURITY.md"]


def wrong_titles(text: str) -> list[str]:
    """Titles in ``text`` that stand on no canvas."""
    found = [name for name in NO_NODES if re.search(rf"\b{re.escape(name)}\b(?! from Hub)", text)]
    for name in SHORT:
        for match in re.finditer(rf"(?<![\w{{]){re.escape(name)}\b(?!{re.escape(MARK)})", text):
            longer = any(text.startswith(title, match.start()) for title in TITLES if len(title) > len(name))
            host = name in HOST_TITLES and text[: match.start()].endswith("ComfyUI's own ")
            if not longer and not host:
                found.append(name)
    return found


def literals(file: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module that a user may read: not its docstrings, not those of one word."""
    tree = ast.parse(file.read_text("utf-8"))
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documents:
            continue
        if " " in node.value:
            yield node.lineno, node.value


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


def test_a_wrong_title_is_seen() -> None:
    assert wrong_titles("Load it with Load Diffusers ControlNet.") == ["Load Diffusers ControlNet"]
    assert wrong_titles("Use Load Model.") == ["Load Model"]
    assert wrong_titles("Connect Apply ControlNet, or Apply ControlNet (Diffusers).") == ["Apply ControlNet"]
    assert wrong_titles("Load Diffusers Model from Hub, Load ControlNet from Hub (Diffusers), Set VAE") == []
    assert wrong_titles("or ComfyUI's own Load LoRA") == []
