"""The page's menu: a graph as a script, and the way back, on both pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffusers_relay.script.write import graph_in
from relay_host.page import HostPage
from relay_host.paths import ROOT

EXAMPLE = json.loads((ROOT / "example_workflows" / "controlnet_depth_then_restyle.json").read_text("utf-8"))
COMMAND = "DiffusersRelay.ExportScript"
RUN = f"async () => {{ await window.app.extensionManager.command.execute('{COMMAND}'); return true; }}"
SELECT = """
type => {
    const node = window.app.graph.nodes.find(candidate => candidate.type === type);
    window.app.canvas.selectItems?.([node]) ?? window.app.canvas.selectNodes([node]);
    return true;
}
"""
SELECT_NOTHING = "() => { window.app.canvas.deselectAll(); return true; }"
DROP = """
async ([name, text]) => {
    const files = new DataTransfer();
    files.items.add(new File([text], name, {type: 'text/x-python'}));
    const event = new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true});
    document.querySelector('#graph-canvas').dispatchEvent(event);
    return true;
}
"""
NODES = "() => window.app.graph.nodes.map(node => [node.id, node.type, node.title])"
CLEAR = "() => { window.app.graph.clear(); return true; }"
TOASTS = "() => [...document.querySelectorAll('.p-toast-message, [role=status], [role=alert]')].map(toast => toast.textContent)"


def exported(page: HostPage, folder: Path) -> str:
    with page.page.expect_download(timeout=60_000) as download:
        page.ask(RUN)
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    assert file.suffix == ".py"
    return file.read_text("utf-8")


def nodes(page: HostPage) -> list[Any]:
    return sorted(page.ask(NODES), key=lambda node: int(node[0]))


def test_the_graph_is_exported_and_comes_back_when_the_script_is_dropped(page: HostPage, tmp_path: Path) -> None:
    page.load_workflow(EXAMPLE)
    page.ask(SELECT_NOTHING)
    before = nodes(page)
    text = exported(page, tmp_path)
    found = graph_in(text)
    assert found is not None
    assert set(found) == {"prompt", "workflow"}
    compile(text, "script", "exec")

    page.ask(SELECT, "PreviewImage")
    part = exported(page, tmp_path)
    assert text.count("\nsave(") == 2
    assert part.count("\nsave(") == 1

    page.ask(CLEAR)
    assert nodes(page) == []
    page.ask(DROP, ["graph.py", text])
    page.page.wait_for_function("count => window.app.graph.nodes.length === count", arg=len(before), timeout=60_000)
    assert nodes(page) == before


@pytest.mark.parametrize(
    ("what", "said"),
    [("export", "CheckpointLoaderSimple"), ("drop", "holds no graph")],
)
def test_what_can_not_be_done_is_said_on_the_page(page: HostPage, what: str, said: str) -> None:
    if what == "export":
        page.load_workflow(
            json.loads((ROOT / "example_workflows" / "mixed_with_comfyui_nodes.json").read_text("utf-8"))
        )
        page.ask(SELECT_NOTHING)
        page.ask(RUN)
    else:
        page.ask(DROP, ["other.py", "print(1)\n"])
    page.page.wait_for_function(f"said => ({TOASTS})().some(text => text.includes(said))", arg=said, timeout=60_000)
