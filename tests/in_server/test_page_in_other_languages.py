"""With the page in another language: the server serves our translations, and the page shows them in the node, its tooltips and its help panel."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from relay_dev.translations import node_texts
from relay_host.page import HostPage, NodeOnPage
from relay_host.paths import ARTIFACTS, ROOT
from relay_host.server import HostServer

LANGUAGES = ("zh", "ja")
NODE = "RelayImageToImage"
SHOWN = """() => {
    const node = window.app.graph.nodes[0];
    return {
        title: node.title,
        inputs: Object.fromEntries(node.inputs.map(one => [one.name, one.localized_name])),
        outputs: node.outputs.map(one => one.localized_name),
        widgets: Object.fromEntries(node.widgets.map(one => [one.name, one.label])),
    };
}"""
WIDGET_PLACE = """name => {
    const node = window.app.graph.nodes[0], canvas = window.app.canvas;
    const widget = node.widgets.find(one => one.name === name);
    const [x, y] = canvas.ds.convertOffsetToCanvas([node.pos[0] + 100, node.pos[1] + widget.last_y + 10]);
    const box = canvas.canvas.getBoundingClientRect();
    return [box.left + x, box.top + y];
}"""


def set_language(server: HostServer, language: str) -> None:
    """Sets the page's language in the server's settings; a page that is opened afterwards uses it."""
    request = urllib.request.Request(
        f"{server.url}/settings/Comfy.Locale", json.dumps(language).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=30).close()


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest, server: HostServer, page: HostPage) -> Iterator[str]:
    """The language of the page, which shows one node."""
    set_language(server, request.param)
    page.open()
    page.build([NodeOnPage("node", NODE, (400, 400))])  # the toolbox opens above the node and below the tabs
    yield request.param
    set_language(server, "en")
    page.open()


def test_the_server_gives_our_translations(server: HostServer) -> None:
    with urllib.request.urlopen(f"{server.url}/i18n", timeout=30) as reply:
        given = json.load(reply)
    for folder in (ROOT / "locales").iterdir():
        assert given[folder.name]["nodeDefs"].items() >= node_texts(folder.name).items()


def test_the_page_speaks_the_language(page: HostPage, language: str) -> None:
    texts = node_texts(language)[NODE]
    shown: dict[str, Any] = page.ask(SHOWN)
    page.screenshot(ARTIFACTS / "page" / f"node_{language}.png")
    names = {key: one["name"] for key, one in texts["inputs"].items()}
    assert shown["title"] == texts["display_name"]
    assert shown["outputs"] == [one["name"] for one in texts["outputs"].values()]
    assert {**shown["inputs"], **shown["widgets"]} == names
    page.page.mouse.move(*page.ask(WIDGET_PLACE, "strength"))
    page.page.get_by_text(texts["inputs"]["strength"]["tooltip"]).wait_for(timeout=10_000)
    page.screenshot(ARTIFACTS / "page" / f"tooltip_{language}.png")


def test_the_help_panel_shows_the_page_in_the_language(page: HostPage, language: str) -> None:
    page.ask("() => { window.app.canvas.selectItems([window.app.graph.nodes[0]]); return true; }")
    page.page.get_by_test_id("info-button").click()
    panel = page.page.locator(".node-help-content")
    panel.locator("table").first.wait_for(timeout=30_000)
    page.screenshot(ARTIFACTS / "page" / f"help_{language}.png")
    translated = (ROOT / "web" / "docs" / NODE / f"{language}.md").read_text("utf-8")
    assert translated.split("\n")[0] in panel.inner_text()
    assert page.errors == []
