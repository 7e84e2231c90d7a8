"""With the newest page in another language: the server gives our translations, and the page shows them in the node, its tooltips and its help panel.

The page of ComfyUI 0.3.75 loads its own texts of a language after ours, and so loses ours; it only shows the help pages.
"""

import json
import urllib.request
from collections.abc import Iterator

import pytest

from relay_dev.translations import languages, node_texts
from relay_host.page import HostPage, NodeOnPage
from relay_host.paths import ROOT
from relay_host.server import HostServer
from support.pages import NODES_2, artifacts_of

LANGUAGES = ("zh", "ja")
NODE = "RelayImageToImage"
LABELS = """() => {
    const node = window.app.graph.nodes[0];
    return {
        title: node.title,
        inputs: Object.fromEntries(node.inputs.map(one => [one.name, one.localized_name])),
        outputs: node.outputs.map(one => one.localized_name),
    };
}"""


@pytest.fixture(scope="module", params=[NODES_2])
def page_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=LANGUAGES)
def language(request: pytest.FixtureRequest, page_server: HostServer, page: HostPage) -> Iterator[str]:
    """The language of the page, which shows one node."""
    set_language(page_server, request.param)
    page.open()
    page.draw_at_most(4)  # frames per second: opening the page has lifted the limit
    page.build([NodeOnPage("node", NODE, (400, 400))])  # the toolbox opens above the node and below the tabs
    yield request.param
    set_language(page_server, "en")


def set_language(server: HostServer, language: str) -> None:
    """Changes the page's setting on the server. A page that is opened afterwards uses it."""
    url, as_json = f"{server.url}/settings/Comfy.Locale", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(language).encode(), as_json)
    urllib.request.urlopen(request, timeout=30).close()


def test_the_server_gives_our_translations(page_server: HostServer) -> None:
    with urllib.request.urlopen(f"{page_server.url}/i18n", timeout=30) as reply:
        given = json.load(reply)
    assert {name: given[name]["nodeDefs"] for name in languages()} == {name: node_texts(name) for name in languages()}


def test_the_page_shows_names_and_tooltips_in_the_language(page: HostPage, language: str) -> None:
    texts = node_texts(language)[NODE]
    page.screenshot(artifacts_of(NODES_2) / f"node_{language}.png")
    assert page.ask(LABELS) == {
        "title": texts["display_name"],
        "inputs": {name: entry["name"] for name, entry in texts["inputs"].items()},
        "outputs": [entry["name"] for entry in texts["outputs"].values()],
    }
    page.page.get_by_text(texts["inputs"]["guidance_scale"]["name"], exact=True).hover()
    page.page.get_by_text(texts["inputs"]["guidance_scale"]["tooltip"]).first.wait_for(timeout=90_000)
    page.screenshot(artifacts_of(NODES_2) / f"tooltip_{language}.png")


def test_the_help_panel_shows_the_page_in_the_language(page: HostPage, language: str) -> None:
    page.ask("() => { window.app.canvas.selectItems([window.app.graph.nodes[0]]); return true; }")
    page.page.get_by_test_id("info-button").click()
    panel = page.page.locator(".node-help-content")
    panel.locator("table").first.wait_for(timeout=90_000)
    page.screenshot(artifacts_of(NODES_2) / f"help_{language}.png")
    translated = (ROOT / "web" / "docs" / NODE / f"{language}.md").read_text("utf-8")
    assert translated.split("\n")[0] in panel.inner_text()
    assert page.errors == []
