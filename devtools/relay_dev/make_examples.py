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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from relay_host.page import HostPage, open_page
from relay_host.paths import ARTIFACTS
from relay_host.server import HostServer

from .demo import EXAMPLES, draw_example, pictures
from .examples import SHEETS
from .examples.sheet import NOTE, Sheet
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

MEASURE = """
ids => {
    const sizes = {};
    for (const [name, id] of Object.entries(ids)) {
        const node = window.app.graph.getNodeById(Number(id));
        const text = node.widgets?.[0]?.element?.querySelector?.('.tiptap');
        sizes[name] = text ? [node.size[0], text.scrollHeight] : Array.from(node.computeSize());
    }
    return sizes;
}
"""
NAME_GRAPH = "id => { window.app.graph.id = id; window.app.graph.revision = 0; return true; }"


def build(page: HostPage, sheet: Sheet) -> dict[str, Any]:
    """Builds the workflow on the page and returns what the page saves.

    It builds twice: first to measure the nodes, then to place them.
    """
    rough = sheet.placed()
    ids = page.build(rough.nodes, rough.links)
    page.fit_view()
    page.page.wait_for_timeout(SETTLE)
    least = {name: (width, height) for name, (width, height) in page.ask(MEASURE, ids).items()}
    least[NOTE] = (least[NOTE][0], least[NOTE][1] + NOTE_FRAME)
    final = sheet.placed(sheet.wanted_sizes(least))
    page.build(final.nodes, final.links, final.groups)
    page.ask(NAME_GRAPH, str(uuid.uuid5(uuid.NAMESPACE_URL, f"diffusers-relay/{sheet.file}")))
    page.page.wait_for_timeout(SETTLE)
    return saved(page)


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


def make(page: HostPage, server: HostServer, sheet: Sheet, *, run: bool) -> None:
    # Save again after loading, because the page adds fields when it loads a workflow.
    workflow = saved_again(page, build(page, sheet))
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
    server = HostServer(models=models.models, environment=models.environment())
    draw_example(server.folders["input"])
    with server:
        for sheet in chosen:
            # Open a new page for each: a page keeps node outputs by id, and the next graph uses the same ids.
            with open_page(server.url, width=VIEW[0], height=VIEW[1]) as page:
                make(page, server, sheet, run=not options.no_run)
                if page.errors:
                    raise AssertionError(f"the page threw: {page.errors}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
