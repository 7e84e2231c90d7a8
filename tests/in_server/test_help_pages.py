"""Every node has a help page that describes all its inputs and outputs; the server serves it, and the help panel shows it."""

import ast
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from relay_host.page import HostPage, NodeOnPage
from relay_host.paths import PACK_FOLDER, ROOT
from relay_host.server import HostServer
from support.pages import artifacts_of

FOLDER = ROOT / "web" / "docs"
PAGES = sorted(FOLDER.glob("*.md"))
MOST_LINES = 70
SECTIONS = ["## Inputs", "## Outputs", "## Good to know", "## In a script"]
SHOWN_IN_PANEL = "RelayImageToImage"
"""It has the longest name of an input and a table of errors."""
CUT_OFF = """() => {
    const panel = document.querySelector('.node-help-content');
    const right = panel.getBoundingClientRect().left + panel.clientWidth;
    return [...panel.querySelectorAll('*')]
        .filter(part => !part.closest('pre') && part.getBoundingClientRect().right > right + 1)
        .map(part => part.textContent.slice(0, 60));
}"""
"""The parts of a help page that reach beyond the panel. Code scrolls in its own box."""


def pack_nodes(server: HostServer) -> dict[str, dict[str, Any]]:
    module = f"custom_nodes.{PACK_FOLDER}"
    return {name: info for name, info in server.object_info().items() if info["python_module"] == module}


def first_sentence(text: str) -> str:
    """The first sentence as read: on one line, without backticks."""
    paragraph = " ".join(text.split("\n\n")[0].split()).replace("`", "")
    return paragraph.split(". ")[0].rstrip(".") + "."


def section(text: str, heading: str) -> str:
    """The text between a heading and the next one."""
    return text.split(f"\n{heading}\n")[1].split("\n## ")[0]


def items(text: str) -> list[str]:
    """The lines that describe an input or output. They are lists, because the help panel is too narrow for a table with names."""
    return [line for line in text.splitlines() if line.startswith("- `")]


def names_of(item: str) -> list[str]:
    """The inputs that a line describes: one, or several as "`image_2` to `image_9`"."""
    if several := re.match(r"- `(\w+_)(\d+)` to `\1(\d+)`", item):
        return [f"{several[1]}{number}" for number in range(int(several[2]), int(several[3]) + 1)]
    return [item.split("`")[1]]


def test_every_node_has_a_page_and_every_page_a_node(server: HostServer) -> None:
    nodes = pack_nodes(server)
    assert nodes, server.log_tail(100)
    assert {page.stem for page in PAGES} == set(nodes)


def test_every_input_and_output_is_on_its_page(server: HostServer) -> None:
    missing = []
    for name, info in pack_nodes(server).items():
        text = (FOLDER / f"{name}.md").read_text("utf-8")
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        for heading, names in (("## Inputs", inputs), ("## Outputs", info["output_name"])):
            named = [name for item in items(section(text, heading)) for name in names_of(item)]
            if named != list(names):
                missing.append(f"{name}, {heading}: {named} instead of {list(names)}")
    assert missing == []


def test_every_default_and_choice_is_on_its_page(server: HostServer) -> None:
    """For inputs with fixed choices; the page doesn't repeat lists of schedulers or local models."""
    missing = []
    for name, info in pack_nodes(server).items():
        described = items(section((FOLDER / f"{name}.md").read_text("utf-8"), "## Inputs"))
        for key, spec in {**info["input"].get("required", {}), **info["input"].get("optional", {})}.items():
            (item,) = (one for one in described if key in names_of(one))
            kind, options = spec[0], spec[1] if len(spec) > 1 else {}
            default = item.partition(" Default: ")[2].strip("`")
            if kind in ("INT", "FLOAT") and float(default) != options["default"]:
                missing.append(f"{name}.{key}: default {default} instead of {options['default']}")
            if kind == "STRING" and default != (options["default"] or "empty"):
                missing.append(f"{name}.{key}: default {default} instead of {options['default']!r}")
            if kind == "BOOLEAN" and default != ("on" if options["default"] else "off"):
                missing.append(f"{name}.{key}: default {default} instead of {options['default']}")
            choices = kind if isinstance(kind, list) else options.get("options", []) if kind == "COMBO" else []
            if "default" in options and choices:
                if default != options["default"]:
                    missing.append(f"{name}.{key}: default {default} instead of {options['default']}")
                if len(choices) <= 6:
                    missing += [f"{name}.{key}: no {choice}" for choice in choices if f"`{choice}`" not in item]
    assert missing == []


@pytest.mark.parametrize("page_file", PAGES, ids=lambda file: file.stem)
def test_a_page_has_all_its_parts(page_file: Path) -> None:
    text = page_file.read_text("utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    headings = re.findall(r"^## .*$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    (script,) = re.findall(r"```python\n(.*?)```", section(text, "## In a script"), re.DOTALL)
    ast.parse(script)


@pytest.mark.parametrize("page_file", PAGES, ids=lambda file: file.stem)
def test_the_server_gives_the_page(server: HostServer, page_file: Path) -> None:
    url = f"{server.url}/extensions/{PACK_FOLDER}/docs/{page_file.name}"
    with urllib.request.urlopen(url, timeout=30) as reply:
        assert reply.read().decode("utf-8") == page_file.read_text("utf-8")


def test_the_help_panel_shows_the_page(page: HostPage, page_name: str) -> None:
    page.build([NodeOnPage("node", SHOWN_IN_PANEL, (400, 400))])  # the toolbox opens above the node and below the tabs
    page.ask("() => { window.app.canvas.selectItems([window.app.graph.nodes[0]]); return true; }")
    page.page.get_by_test_id("info-button").click()
    panel = page.page.locator(".node-help-content")
    panel.locator("table").first.wait_for(timeout=90_000)
    shown = " ".join(panel.inner_text().split())
    page.screenshot(artifacts_of(page_name) / "help_panel.png")
    assert first_sentence((FOLDER / f"{SHOWN_IN_PANEL}.md").read_text("utf-8")) in shown
    assert page.ask(CUT_OFF) == []
    assert page.errors == []
