"""The host's own page in a headless Chromium: it shows what a user sees, and only it converts a workflow's UI format to API format.

    with open_page(server.url) as page:
        page.load_workflow(json.loads(path.read_text()))
        page.queue_and_wait().raise_for_error()
        page.screenshot(path)

Values pass between the page and Python as JSON made by the page, so they are what the page would save: undefined fields are left out
and don't become null.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import playwright.sync_api as playwright

from .browser import get_browser
from .server import ExecutionError, Prompt, PromptRejected, read_error

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
]
READY = "() => window.LiteGraph && window.app?.graph && window.app.vueAppReady"
DIALOGS = ".p-dialog, .comfy-modal:not([style*='none']) .comfy-modal-content"

BUILD = """
async ({nodes, links, groups}) => {
    const app = window.app, nodesByName = {};
    app.graph.clear();
    app.clean();  // and the pictures of a graph that was loaded before, whose nodes had the same ids
    app.canvas.ds.reset();  // a graph that was loaded before has moved and scaled the view
    for (const spec of nodes) {
        const node = LiteGraph.createNode(spec.type);
        if (!node) throw new Error(`the page has no node type ${spec.type}`);
        if (spec.title) node.title = spec.title;
        app.graph.add(node);
        node.pos = spec.pos;
        if (spec.color) node.color = spec.color;
        if (spec.bgcolor) node.bgcolor = spec.bgcolor;
        Object.assign(node.properties, spec.properties);
        for (const [name, value] of Object.entries(spec.widgets)) {
            const widgets = node.widgets ?? [];
            const widget = name === '' ? widgets[0] : widgets.find(w => w.name === name);
            if (!widget) throw new Error(`${spec.type} has no widget ${name}; it has ${widgets.map(w => w.name)}`);
            const choices = widget.type === 'combo' ? widget.options?.values : null;
            if (Array.isArray(choices) && !choices.includes(value))
                throw new Error(`${spec.type}.${name} has no choice ${value}; it has ${choices}`);
            widget.value = value;
            widget.callback?.(value, app.canvas, node);
        }
        if (spec.size) node.setSize(spec.size);
        else {
            const least = node.computeSize();
            node.setSize([Math.max(least[0], node.size[0]), Math.max(least[1], node.size[1])]);
        }
        nodesByName[spec.name] = node;
    }
    for (const [fromName, output, toName, input] of links) {
        const from = nodesByName[fromName], to = nodesByName[toName];
        if (!from || !to) throw new Error(`a link from ${fromName} to ${toName}: one of the nodes doesn't exist`);
        const slot = typeof output === 'number' ? output : from.outputs.findIndex(s => s.name === output);
        if (slot < 0 || slot >= from.outputs.length)
            throw new Error(`${from.type} has no output ${output}; it has ${from.outputs.map(s => s.name)}`);
        const into = to.inputs.findIndex(s => s.name === input);
        if (into < 0) throw new Error(`${to.type} has no input ${input}; it has ${to.inputs.map(s => s.name)}`);
        if (!from.connect(slot, to, into)) throw new Error(`can't connect ${fromName}.${output} to ${toName}.${input}`);
    }
    for (const spec of groups) {
        const group = new LiteGraph.LGraphGroup(spec.title);
        let box = spec.bounding;
        if (spec.around) {
            const inside = spec.around.map(name => nodesByName[name]), margin = 20, title = LiteGraph.NODE_TITLE_HEIGHT;
            const left = Math.min(...inside.map(n => n.pos[0])) - margin;
            const top = Math.min(...inside.map(n => n.pos[1] - title)) - margin - group.titleHeight;
            const right = Math.max(...inside.map(n => n.pos[0] + n.size[0])) + margin;
            const bottom = Math.max(...inside.map(n => n.pos[1] + n.size[1])) + margin;
            box = [left, top, right - left, bottom - top];
        }
        group.pos = box.slice(0, 2);
        group.size = box.slice(2);
        if (spec.color) group.color = spec.color;
        app.graph.add(group);
    }
    app.graph.setDirtyCanvas(true, true);
    return Object.fromEntries(Object.entries(nodesByName).map(([name, node]) => [name, String(node.id)]));
}
"""


FEWER_STEPS = """
most => {
    for (const node of window.app.graph.nodes)
        for (const widget of node.widgets ?? []) if (widget.name === 'steps') widget.value = Math.min(widget.value, most);
    return true;
}
"""


FIT_VIEW = """
async () => {
    window.app.canvas.deselectAll();  // else only the selected nodes are shown
    window.app.canvas.draw(true, true);  // the classic renderer knows where a new node is once it has drawn it
    await window.app.extensionManager.command.execute('Comfy.Canvas.FitView');
}
"""


@dataclass(frozen=True)
class NodeOnPage:
    """A node to create. Widgets by name; the name "" is the first widget, which is the text of a Note or MarkdownNote."""

    name: str
    type: str
    pos: tuple[float, float]
    widgets: dict[str, Any] = field(default_factory=dict)
    size: tuple[float, float] | None = None
    title: str = ""
    color: str = ""
    bgcolor: str = ""
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupOnPage:
    """A titled frame: around the named nodes, or, with bounding, at (x, y, width, height)."""

    title: str
    around: tuple[str, ...] = ()
    bounding: tuple[float, float, float, float] | None = None
    color: str = ""


Link = tuple[str, "str | int", str, str]
"""(source node's name, output's name or number, target node's name, input's name)"""


@dataclass(frozen=True)
class PageRun:
    """The result of a prompt that the page queued."""

    prompt_id: str
    outputs: dict[str, Any]
    error: ExecutionError | None
    interrupted: bool

    def raise_for_error(self) -> PageRun:
        if self.error is not None:
            raise AssertionError(f"node {self.error.node_id} ({self.error.node_type}): {self.error.traceback}")
        if self.interrupted:
            raise AssertionError("the run was interrupted")
        return self


class HostPage:
    """The open page. `page` is Playwright's own object, for anything without a method here."""

    def __init__(self, page: playwright.Page, server_url: str):
        self.page = page
        self.server_url = server_url
        self.errors: list[str] = []
        """Uncaught errors from the page's scripts."""
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, timeout: float = 90) -> None:
        self.page.goto(self.server_url, wait_until="domcontentloaded", timeout=timeout * 1000)
        self.page.wait_for_function(READY, timeout=timeout * 1000)
        self.dismiss_dialogs()

    def ask(self, function: str, argument: Any = None) -> Any:
        """Calls a JavaScript function in the page and returns its result, which must be JSON."""
        wrapped = f"async argument => JSON.stringify(await ({function})(argument)) ?? 'null'"
        return json.loads(self.page.evaluate(wrapped, argument))

    def dialogs(self) -> list[str]:
        """The texts of the open dialogs."""
        found = (
            element.inner_text().strip() for element in self.page.query_selector_all(DIALOGS) if element.is_visible()
        )
        return [text for text in found if text]

    def dismiss_dialogs(self, settle: float = 0.5) -> list[str]:
        """Closes the open dialogs and returns their texts."""
        self.page.wait_for_timeout(settle * 1000)
        seen: list[str] = []
        for _ in range(5):
            open_now = self.dialogs()
            if not open_now:
                return seen
            seen += open_now
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(400)
        raise RuntimeError(f"a dialog on the page doesn't close: {self.dialogs()}")

    def registered_nodes(self) -> list[str]:
        """The ids of all node types that the page knows."""
        return list(self.ask("() => Object.keys(LiteGraph.registered_node_types)"))

    def load_workflow(self, workflow: dict[str, Any]) -> None:
        """Loads a workflow in UI format; raises if the page shows a dialog, for example about missing nodes."""
        self.ask("async workflow => { await window.app.loadGraphData(workflow); return true; }", workflow)
        shown = self.dismiss_dialogs()
        if shown:
            raise AssertionError(f"the page objects to the workflow: {shown}")

    def build(
        self, nodes: Sequence[NodeOnPage], links: Sequence[Link] = (), groups: Sequence[GroupOnPage] = ()
    ) -> dict[str, str]:
        """Replaces the graph on the page. Returns {name: node id}."""
        specs = {
            "nodes": [vars(node) for node in nodes],
            "links": [list(link) for link in links],
            "groups": [vars(group) | {"around": list(group.around) or None} for group in groups],
        }
        return dict(self.ask(BUILD, specs))

    def to_api(self) -> Prompt:
        """The graph in API format."""
        return dict(self.ask("async () => (await window.app.graphToPrompt()).output"))

    def draw_at_most(self, frames_per_second: int) -> None:
        """Limits how often the canvas is drawn (the setting "Maximum FPS") until the page is opened again."""
        self.ask("most => { window.app.canvas.maximumFps = most; return true; }", frames_per_second)

    def show_text_at_every_zoom(self) -> None:
        """Titles and widgets keep their text on a small canvas too (the setting "Zoom Node Level of Detail")."""
        self.ask(
            "() => window.app.ui.settings.setSettingValueAsync('LiteGraph.Canvas.MinFontSizeForLOD', 0).then(() => true)"
        )

    def take_fewer_steps(self, most: int) -> None:
        """Limits every `steps` widget in the graph to `most`."""
        self.ask(FEWER_STEPS, most)

    def queue_and_wait(self, timeout: float = 120) -> PageRun:
        """Queues the page's graph, as the Run button does, and waits until it ends."""
        with self.page.expect_response(is_queued_prompt) as waiting:
            self.ask("async () => { await window.app.queuePrompt(0, 1); return true; }")
        reply = waiting.value
        answer = reply.json()
        if reply.status != 200 or answer.get("node_errors"):
            raise PromptRejected(reply.status, answer)
        prompt_id = answer["prompt_id"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"{self.server_url}/history/{prompt_id}", timeout=30) as history:
                entry = json.load(history).get(prompt_id)
            if entry is not None:
                return _page_run(prompt_id, entry)
            self.page.wait_for_timeout(200)
        raise TimeoutError(f"the page's run did not end within {timeout} s")

    def node_help(self, node_type: str) -> dict[str, Any]:
        """What the page knows about a node type: {"display_name", "description", "inputs": {name: tooltip}}."""
        function = """type => {
            const data = LiteGraph.registered_node_types[type].nodeData;
            const inputs = Object.entries({...data.input?.required, ...data.input?.optional});
            return {display_name: data.display_name, description: data.description,
                    inputs: Object.fromEntries(inputs.map(([name, spec]) => [name, spec[1]?.tooltip ?? '']))};
        }"""
        return dict(self.ask(function, node_type))

    def fit_view(self) -> None:
        """Shows the whole graph."""
        self.ask(FIT_VIEW)
        self.page.wait_for_timeout(600)

    def screenshot(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
        return path


@contextmanager
def open_page(server_url: str, *, width: int = 1600, height: int = 1000) -> Iterator[HostPage]:
    """The host's page in a headless Chromium, ready to use, with the first-run dialogs closed."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=get_browser(), args=ARGUMENTS, headless=True)
        try:
            yield _opened(browser, server_url, width, height)
        finally:
            browser.close()


@contextmanager
def open_page_beside(page: HostPage, server_url: str, *, width: int = 1600, height: int = 1000) -> Iterator[HostPage]:
    """Another server's page in the browser of `page`, in its own context: a thread can drive only one browser."""
    browser = page.page.context.browser
    assert browser is not None
    other = _opened(browser, server_url, width, height)
    try:
        yield other
    finally:
        other.page.context.close()


def _opened(browser: playwright.Browser, server_url: str, width: int, height: int) -> HostPage:
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
    page = HostPage(context.new_page(), server_url.rstrip("/"))
    page.open()
    return page


def is_queued_prompt(reply: playwright.Response) -> bool:
    return reply.url.endswith("/prompt") and reply.request.method == "POST"


def _page_run(prompt_id: str, entry: dict[str, Any]) -> PageRun:
    messages = dict(entry.get("status", {}).get("messages", []))
    error = read_error(messages["execution_error"]) if "execution_error" in messages else None
    return PageRun(prompt_id, entry.get("outputs", {}), error, "execution_interrupted" in messages)
