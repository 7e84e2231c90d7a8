"""Runs the example workflows in a real ComfyUI, on small trained models, and prints where the pictures are.

    python dev.py demo                          all examples
    python dev.py demo sd15                     only those whose file names begin with this
    python dev.py demo --serve                  leaves the server running so you can try the nodes on its page
    python dev.py demo --published              uses the published models, which are downloaded (tens of GB)

The small models stand in for the published ones, under the same ids. They can only paint a few coloured shapes; see devtools/tiny_world.
The page shows a notice that says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from relay_host import notice
from relay_host.comfyui import get_host
from relay_host.page import HostPage, PageRun, open_page
from relay_host.paths import ARTIFACTS, ROOT, WORK
from relay_host.server import HostServer, PromptRejected
from tiny_world.drawing import draw
from tiny_world.scene import one_thing

from .examples.parts import EXAMPLE_PICTURE
from .model_folders import small_models

EXAMPLES = ROOT / "example_workflows"
NOTICE = {"relay-demo-notice": Path(notice.__file__).parent}
"""A custom node pack that shows a notice about the models on the page."""
DOWNLOAD_SECONDS = 6 * 3600
PREVIEWS = ("--preview-method", "auto")
"""ComfyUI shows no previews by default."""
EXAMPLE = one_thing("star", "white", "black")
"""The scene in the examples' input picture. The picture also serves as its own depth map."""
EXAMPLE_SIDE = 512
README_EXAMPLE = "latent_chain_of_three"
README_PICTURE = ROOT / "docs" / "chain.jpg"
README_WIDTH = 1600
"""Pixels."""
README_VIEW = {"width": 2560, "height": 1600}
"""Large enough for the titles of nodes to be read."""


def draw_example(folder: Path) -> None:
    """Replaces ComfyUI's own example.png, which shows nothing that the small models can paint."""
    picture = Image.fromarray((draw(EXAMPLE, EXAMPLE_SIDE) * 255).round().astype("uint8"))
    picture.save(folder / EXAMPLE_PICTURE)


def chosen_workflows(names: Sequence[str]) -> list[Path]:
    files = sorted(EXAMPLES.glob("*.json"))
    for name in names:
        if not any(file.name.startswith(name) for file in files):
            raise SystemExit(
                f"No example begins with {name!r}. The examples are: {', '.join(file.stem for file in files)}"
            )
    return [file for file in files if not names or file.name.startswith(tuple(names))]


def run_workflow(page: HostPage, server: HostServer, file: Path, seconds: float) -> bool:
    """Loads the file on the page, runs it for at most `seconds`, and prints the result."""
    began = time.monotonic()
    try:
        page.load_workflow(json.loads(file.read_text("utf-8")))
        page.fit_view()
        run = page.queue_and_wait(seconds).raise_for_error()
    except (AssertionError, PromptRejected, TimeoutError) as error:
        print(f"{file.stem}: FAILED\n{error}", flush=True)
        return False
    print(f"{file.stem}: {time.monotonic() - began:.1f} s", flush=True)
    for picture in pictures(run, server):
        print(f"    {picture}", flush=True)
    screenshot = page.screenshot(ARTIFACTS / "demo" / f"{file.stem}.png")
    print(f"    the page: {screenshot}", flush=True)
    return True


def save_for_readme(screenshot: Path) -> None:
    """Saves a screenshot of the page as README's picture of the canvas."""
    picture = Image.open(screenshot).convert("RGB")
    picture.thumbnail((README_WIDTH, README_WIDTH), Image.Resampling.LANCZOS)
    picture.save(README_PICTURE, quality=85, optimize=True)
    print(f"    README's picture: {README_PICTURE}", flush=True)


def pictures(run: PageRun, server: HostServer) -> list[Path]:
    entries = [entry for output in run.outputs.values() for entry in output.get("images", [])]
    saved = [entry for entry in entries if entry["type"] == "output"]
    return [server.folders["output"] / entry["subfolder"] / entry["filename"] for entry in saved]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dev.py demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workflows", nargs="*", help="beginnings of file names in example_workflows; none: all of them")
    parser.add_argument("--serve", action="store_true", help="leave the server running until Ctrl+C")
    parser.add_argument("--comfyui", type=Path, help="a ComfyUI folder to use instead of the downloaded one")
    parser.add_argument("--published", action="store_true", help="download and use the published models")
    parser.add_argument(
        "--models",
        type=Path,
        help="with --published: a ComfyUI models folder, for the checkpoint and the LoRA of two examples",
    )
    parser.add_argument(
        "--readme", action="store_true", help=f"save the canvas of {README_EXAMPLE} as the README's picture"
    )
    parser.add_argument("--port", type=int, help="the server's port; default: a free one, and 8188 with --serve")
    options = parser.parse_args(arguments)
    files = chosen_workflows([README_EXAMPLE] if options.readme else options.workflows)
    if options.models and not options.published:
        parser.error("--models needs --published: the small models have their own models folder")
    seconds = DOWNLOAD_SECONDS if options.published else 600
    server = HostServer(
        host=get_host(options.comfyui),
        port=options.port or (8188 if options.serve else None),
        threads=None,
        arguments=PREVIEWS,
        **(published_models(options.models) if options.published else stand_ins()),
    )
    if not options.published:
        draw_example(server.folders["input"])
    with server:
        with open_page(server.url, **(README_VIEW if options.readme else {})) as page:
            if options.readme:
                page.show_text_at_every_zoom()
            worked = [run_workflow(page, server, file, seconds) for file in files]
            if options.readme and all(worked):
                save_for_readme(ARTIFACTS / "demo" / f"{README_EXAMPLE}.png")
        print(
            f"{sum(worked)} of {len(files)} example workflows worked. Pictures: {server.folders['output']}", flush=True
        )
        if options.serve:
            print(f"The page: {server.url}  (Ctrl+C stops it; log: {server.log_path})", flush=True)
            wait_for_the_end(server)
    return 0 if all(worked) else 1


def stand_ins() -> dict[str, Any]:
    """HostServer's arguments for the small models."""
    models = small_models()
    return {
        "base": WORK / "demo",
        "models": models.models,
        "environment": models.environment(),
        "other_packs": NOTICE,
    }


def published_models(models: Path | None) -> dict[str, Any]:
    """HostServer's arguments for the published models. They go into the user's own hub cache and run on a GPU if there is one."""
    import torch

    return {"base": WORK / "demo-published", "models": models, "cpu": not torch.accelerator.is_available()}


def wait_for_the_end(server: HostServer) -> None:
    assert server.process is not None
    try:
        server.process.wait()
    except KeyboardInterrupt:
        print("Stopping.", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
