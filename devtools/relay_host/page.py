"""The host's own page in a headless Chromium: what a user sees, and what alone turns a workflow's UI format into API format.

    with open_page(server.url) as page:
        page.load_workflow(json.loads(path.read_text()))
        page.queue_and_wait().raise_for_error()
        page.screenshot(path)

What passes between the page and Python goes through JSON inside the page, so that it is what the page would save: fields that
are undefined are left out, and are not null.
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
    const app = window.app, made = {};
    app.graph.clear();
    for (const spec of nodes) {
        const node = LiteGraph.createNode(spec.type);
        if (!node) throw new Error(`no node type ${spec.type} on the page`);
        if (spec.title) node.title = spec.title;
        app.graph.add(node);
        node.pos = spec.pos;
        if (spec.color) node.color = spec.color;
        if (spec.bgcolor) node.bgcolor = spec.bgcolor;
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
        made[spec.name] = node;
    }
    for (const [fromName, output, toName, input] of links) {
        const from = made[fromName], to = made[toName];
        if (!from || !to) throw new Error(`a link from ${fromName} to ${toName}: one of them is not there`);
        const slot = typeof output === 'number' ? output : from.outputs.findIndex(s => s.name === output);
        if (slot < 0 || slot >= from.outputs.length)
            throw new Error(`${from.type} has no output ${output}; it has ${from.outputs.map(s => s.name)}`);
        const into = to.inputs.findIndex(s => s.name === input);
        if (into < 0) throw new Error(`${to.type} has no input ${input}; it has ${to.inputs.map(s => s.name)}`);
        if (!from.connect(slot, to, into)) throw new Error(`${fromName}.${output} does not go into ${toName}.${input}`);
    }
    for (const spec of groups) {
        const group = new LiteGraph.LGraphGroup(spec.title);
        let box = spec.bounding;
        if (spec.around) {
            const inside = spec.around.map(name => made[name]), margin = 20, title = LiteGraph.NODE_TITLE_HEIGHT;
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
    return Object.fromEntries(Object.entries(made).map(([name, node]) => [name, String(node.id)]));
}
"""


FEWER_STEPS = """
most => {
    for (const node of window.app.graph.nodes)
        for (const widget of node.widgets ?? []) if (widget.name === 'steps') widget.value = Math.min(widget.value, most);
    return true;
}
"""


@dataclass(frozen=True)
class NodeOnPage:
    """A node to make. Widgets by name; the name "" is the first widget, which is a note's text (types Note, MarkdownNote)."""

    name: str
    type: str
    pos: tuple[float, float]
    widgets: dict[str, Any] = field(default_factory=dict)
    size: tuple[float, float] | None = None
    title: str = ""
    color: str = ""
    bgcolor: str = ""


@dataclass(frozen=True)
class GroupOnPage:
    """A titled frame: around the nodes of these names, or, with bounding, at x, y, width, height."""

    title: str
    around: tuple[str, ...] = ()
    bounding: tuple[float, float, float, float] | None = None
    color: str = ""


Link = tuple[str, "str | int", str, str]
"""(name of the node that gives, its output's name or number, name of the node that takes, its input's name)"""


@dataclass(frozen=True)
class PageRun:
    """What a prompt that the page queued has done."""

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
    """The open page. `page` is Playwright's own, for what has no method here."""

    def __init__(self, page: playwright.Page, server_url: str):
        self.page = page
        self.server_url = server_url
        self.errors: list[str] = []
        """What the page's scripts threw and did not catch."""
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, timeout: float = 90) -> None:
        self.page.goto(self.server_url, wait_until="domcontentloaded", timeout=timeout * 1000)
        self.page.wait_for_function(READY, timeout=timeout * 1000)
        self.dismiss_dialogs()

    def ask(self, function: str, argument: Any = None) -> Any:
        """Calls a JavaScript function in the page; its result goes through JSON there."""
        wrapped = f"async argument => JSON.stringify(await ({function})(argument)) ?? 'null'"
        return json.loads(self.page.evaluate(wrapped, argument))

    def dialogs(self) -> list[str]:
        """The texts of the dialogs that are open."""
        found = (
            element.inner_text().strip() for element in self.page.query_selector_all(DIALOGS) if element.is_visible()
        )
        return [text for text in found if text]

    def dismiss_dialogs(self, settle: float = 0.5) -> list[str]:
        """Closes the dialogs that are open, and says what was in them."""
        self.page.wait_for_timeout(settle * 1000)
        seen: list[str] = []
        for _ in range(5):
            open_now = self.dialogs()
            if not open_now:
                return seen
            seen += open_now
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(400)
        raise RuntimeError(f"a dialog of the page does not close: {self.dialogs()}")

    def registered_nodes(self) -> list[str]:
        """The ids of all node types that the page knows."""
        return list(self.ask("() => Object.keys(LiteGraph.registered_node_types)"))

    def load_workflow(self, workflow: dict[str, Any]) -> None:
        """Loads a workflow in UI format; raises where the page shows a dialog about it, such as of missing nodes."""
        self.ask("async workflow => { await window.app.loadGraphData(workflow); return true; }", workflow)
        shown = self.dismiss_dialogs()
        if shown:
            raise AssertionError(f"the page objects to the workflow: {shown}")

    def build(
        self, nodes: Sequence[NodeOnPage], links: Sequence[Link] = (), groups: Sequence[GroupOnPage] = ()
    ) -> dict[str, str]:
        """Makes a graph on the page in place of the one that is there; {name: id of the node}."""
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
        """How often the canvas is drawn; it is the setting "Maximum FPS", until the page is opened anew."""
        self.ask("most => { window.app.canvas.maximumFps = most; return true; }", frames_per_second)

    def take_fewer_steps(self, most: int) -> None:
        """Sets each `steps` of the graph to `most` where it is larger."""
        self.ask(FEWER_STEPS, most)

    def queue_and_wait(self, timeout: float = 120) -> PageRun:
        """Queues what is on the page, as the Run button does, and waits for its end."""
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
        raise TimeoutError(f"no end of the page's run within {timeout} s")

    def node_help(self, node_type: str) -> dict[str, Any]:
        """What the page knows of a node type: {"display_name", "description", "inputs": {name: tooltip}}."""
        function = """type => {
            const data = LiteGraph.registered_node_types[type].nodeData;
            const inputs = Object.entries({...data.input?.required, ...data.input?.optional});
            return {display_name: data.display_name, description: data.description,
                    inputs: Object.fromEntries(inputs.map(([name, spec]) => [name, spec[1]?.tooltip ?? '']))};
        }"""
        return dict(self.ask(function, node_type))

    def fit_view(self) -> None:
        """Shows the whole graph."""
        self.ask("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(600)

    def screenshot(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
        return path


@contextmanager
def open_page(server_url: str, *, width: int = 1600, height: int = 1000) -> Iterator[HostPage]:
    """The host's page in a headless Chromium, ready to work on, with the first-run dialogs closed."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=get_browser(), args=ARGUMENTS, headless=True)
        try:
            yield _opened(browser, server_url, width, height)
        finally:
            browser.close()


@contextmanager
def open_page_beside(page: HostPage, server_url: str, *, width: int = 1600, height: int = 1000) -> Iterator[HostPage]:
    """Another server's page in the browser of `page`, which shares nothing with it: a thread can drive one browser only."""
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
