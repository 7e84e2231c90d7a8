"""Makes the example workflows: builds each on the host's own page, saves it as the page does, runs it, and saves its picture.

    PYTHONPATH=devtools python -m relay_dev.make_examples                   all of them
    PYTHONPATH=devtools python -m relay_dev.make_examples strength_sweep    only those whose file names begin with this
    ... --no-run                                                            keeps the existing thumbnails

Writes example_workflows/NAME.json and NAME.jpg, and a screenshot of each canvas to the artifacts folder.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from relay_host.front_end import NODES_2_SETTINGS, newest_front_end
from relay_host.page import HostPage, open_page, open_page_beside
from relay_host.paths import ARTIFACTS
from relay_host.server import HostServer

from .boxes import A_NOTE, boxes, show_a_run, sockets
from .demo import EXAMPLES, draw_example, pictures
from .examples import SHEETS
from .examples.curves import Point
from .examples.layout import TITLE, Laid, Shape, lay_out
from .examples.sheet import NOTE, Sheet, Size
from .model_folders import small_models

SCREENSHOTS = ARTIFACTS / "examples"
THUMBNAIL_SIDE = 400
THUMBNAIL_BYTES = 50_000
SETTLE = 1500
"""Milliseconds: pictures and notes are drawn a little after the graph has loaded."""
VIEW = (3000, 1600)
"""Large enough to show a whole workflow with readable text."""
NOTE_FRAME = 30
"""How much taller a note is than its text."""

NAME_GRAPH = "id => { window.app.graph.id = id; window.app.graph.revision = 0; return true; }"


@dataclass(frozen=True)
class Measured:
    """What a workflow's nodes measure: the sizes to save, with the note's; shapes; and the numbers of their outputs, by name."""

    sizes: dict[str, Size]
    shapes: dict[str, Shape]
    slots: dict[str, dict[str, int]]


def measure(page: HostPage, newest: HostPage, sheet: Sheet) -> Measured:
    """Builds the workflow twice: to find the least sizes of the nodes, and to see how much room they take in either renderer."""
    ids = page.build(sheet.nodes(sheet.preferred_sizes()), sheet.links)
    page.fit_view()
    page.page.wait_for_timeout(SETTLE)
    least = sockets(page)
    sizes = {}
    for name, (width, height) in sheet.preferred_sizes().items():
        node = least[int(ids[name])]
        tall = node["note"] + NOTE_FRAME if name == NOTE else node["least"][1]
        sizes[name] = (max(width, node["least"][0]), max(height, tall))
    ids = page.build(sheet.nodes(sizes), sheet.links)
    page.page.wait_for_timeout(SETTLE)
    measured = {name: sockets(page)[int(node)] for name, node in ids.items()}
    newest.load_workflow(saved(page))
    room = dict.fromkeys(ids, 0.0)
    for renderer in (page, newest):
        show_a_run(renderer, text=A_NOTE)
        shown = boxes(renderer)
        room = {name: max(room[name], shown[int(node)].height - TITLE) for name, node in ids.items()}
    sizes[NOTE] = (sizes[NOTE][0], room[NOTE])
    shapes = {name: Shape(*sizes[name], room[name], node["inputs"], node["outputs"]) for name, node in measured.items()}
    slots = {name: {output: at for at, output in enumerate(node["names"])} for name, node in measured.items()}
    return Measured(sizes, shapes, slots)


def build(page: HostPage, sheet: Sheet, measured: Measured) -> dict[str, Any]:
    """Builds the workflow in its place on the page and returns what the page saves."""
    laid = lay_out(measured.shapes, sheet.groups, sheet.connections(measured.slots), sheet.left)
    ids = page.build(sheet.nodes(measured.sizes, laid.spots), sheet.links, sheet.frames(laid))
    page.ask(NAME_GRAPH, str(uuid.uuid5(uuid.NAMESPACE_URL, f"diffusers-relay/{sheet.file}")))
    page.page.wait_for_timeout(SETTLE)
    numbers = {name: int(node) for name, node in ids.items()}
    return as_app(with_reroutes(saved(page), laid, numbers), sheet, numbers)


def as_app(workflow: dict[str, Any], sheet: Sheet, ids: Mapping[str, int]) -> dict[str, Any]:
    if sheet.app_inputs:
        workflow["extra"]["linearData"] = {
            "inputs": [[ids[name], widget] for name, widget in sheet.app_inputs],
            "outputs": [ids[name] for name in sheet.app_outputs],
        }
    return workflow


def with_reroutes(workflow: dict[str, Any], laid: Laid, ids: Mapping[str, int]) -> dict[str, Any]:
    """The workflow with the points that its wires pass. The wires of an output share them."""
    found: dict[tuple[str, int, Point], dict[str, Any]] = {}
    extensions = []
    for wire, points in laid.reroutes.items():
        target = next(node for node in workflow["nodes"] if node["id"] == ids[wire.target])
        link = next(one["link"] for one in target["inputs"] if one["name"] == wire.input)
        parent: int | None = None
        for point in points:
            after = {} if parent is None else {"parentId": parent}
            reroute = found.setdefault(
                (wire.source, wire.slot, point), {"id": len(found) + 1, **after, "pos": list(point), "linkIds": []}
            )
            reroute["linkIds"].append(link)
            parent = reroute["id"]
        if parent:
            extensions.append({"id": link, "parentId": parent})
    if extensions:
        workflow["extra"] |= {"linkExtensions": extensions, "reroutes": list(found.values())}
    return workflow


def saved(page: HostPage) -> dict[str, Any]:
    """What the page's own Export writes, without the view, so that the page shows the whole workflow."""
    workflow = page.ask("async () => (await window.app.graphToPrompt()).workflow")
    workflow["extra"].pop("ds", None)
    return dict(workflow)


def saved_again(page: HostPage, workflow: dict[str, Any]) -> dict[str, Any]:
    page.load_workflow(workflow)
    page.page.wait_for_timeout(SETTLE)
    return saved(page)


def write_thumbnail(picture: Path, file: Path) -> None:
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    for quality in range(85, 15, -5):
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality, optimize=True)
        if data.tell() <= THUMBNAIL_BYTES:
            break
    file.write_bytes(data.getvalue())


def make(page: HostPage, newest: HostPage, server: HostServer, sheet: Sheet, *, run: bool) -> None:
    # Save again after loading, because the page adds fields when it loads a workflow.
    workflow = saved_again(page, build(page, sheet, measure(page, newest, sheet)))
    text = json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"
    again = json.dumps(saved_again(page, workflow), indent=2, ensure_ascii=False) + "\n"
    if again != text:
        raise AssertionError(f"{sheet.file}: a second save differs from the first")
    (EXAMPLES / f"{sheet.file}.json").write_text(text, "utf-8", newline="\n")
    page.fit_view()
    page.screenshot(SCREENSHOTS / f"{sheet.file}.png")
    print(f"{sheet.file}: saved", flush=True)
    if not run:
        return
    began = time.monotonic()
    done = page.queue_and_wait(600).raise_for_error()
    print(f"    ran in {time.monotonic() - began:.1f} s", flush=True)
    write_thumbnail(pictures(done, server)[-1], EXAMPLES / f"{sheet.file}.jpg")
    page.page.wait_for_timeout(SETTLE)
    page.screenshot(SCREENSHOTS / f"{sheet.file}.png")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of file names; none: all of them")
    parser.add_argument("--no-run", action="store_true", help="save the workflows without running them")
    options = parser.parse_args(arguments)
    sheets = [sheet() for sheet in SHEETS]
    chosen = [sheet for sheet in sheets if not options.names or sheet.file.startswith(tuple(options.names))]
    EXAMPLES.mkdir(exist_ok=True)
    models = small_models()
    server, other = (
        HostServer(models=models.models, environment=models.environment(), arguments=arguments, settings=settings)
        for arguments, settings in (((), {}), (("--front-end-root", str(newest_front_end())), NODES_2_SETTINGS))
    )
    for one in (server, other):
        draw_example(one.folders["input"])
    with (
        server,
        other,
        open_page(server.url, width=VIEW[0], height=VIEW[1]) as page,
        open_page_beside(page, other.url) as newest,
    ):
        for sheet in chosen:
            make(page, newest, server, sheet, run=not options.no_run)
            if page.errors or newest.errors:
                raise AssertionError(f"a page threw: {page.errors + newest.errors}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
