"""Runs one example workflow over a table of prompts and a folder of pictures, with two ComfyUIs, and prints where the contact sheet is.

    python dev.py batch-demo                    twelve rows on two workers
    python dev.py batch-demo --workers 1

It shows what `relay-batch run` does, and its command. Stop it with Ctrl+C, give it again, and it goes on. The small models stand in for the
published ones: see `dev.py demo`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image

from relay_host.comfyui import get_host
from relay_host.environment import host_python
from relay_host.paths import PACK_FOLDER, ROOT, WORK
from relay_host.server import HostServer
from tiny_world.drawing import draw
from tiny_world.scene import one_thing

from .model_folders import small_models

FOLDER = WORK / "batch-demo"
EXAMPLE = ROOT / "example_workflows" / "sd15_image_to_image.json"
PICTURES = {"star": ("white", "black"), "circle": ("red", "blue"), "square": ("yellow", "purple")}
PROMPTS = (
    "a large red flower in a green field",
    "a large white tent on a blue sea",
    "a large yellow sun under a purple sky",
    "a large orange house in a green field",
)
SIDE = 512
STEPS = 12
"""Fewer than the example's 30, for a CPU."""


def lay_out(folder: Path) -> None:
    """Writes the table and the pictures that the demo reads."""
    folder.joinpath("pictures").mkdir(parents=True, exist_ok=True)
    folder.joinpath("prompts.csv").write_text("\n".join(["prompt", *PROMPTS]) + "\n", "utf-8")
    for shape, (color, background) in PICTURES.items():
        picture = Image.fromarray((draw(one_thing(shape, color, background), SIDE) * 255).round().astype("uint8"))
        picture.save(folder / "pictures" / f"{shape}.png")
    if (folder / "out" / "report.html").exists():  # the last demo came to its end
        shutil.rmtree(folder / "out")


def rows_of(folder: Path) -> list[str]:
    """The arguments that say what runs: the same for `relay-batch plan` and `relay-batch run`."""
    return [
        *(str(EXAMPLE), "--out", str(folder / "out"), "--images", str(folder / "pictures"), "--product"),
        *("--set", f"prompt=@{folder / 'prompts.csv'}:prompt", "--set", "seed=@seed:1000+i"),
        *("--set", f"Repaint.steps={STEPS}"),
    ]


def run_command(folder: Path, host: Path, base: Path, workers: int) -> list[str]:
    arguments = ["--cpu", "--disable-api-nodes", "--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_FOLDER]
    return [
        *("run", *rows_of(folder), "--workers", str(workers), "--comfyui", str(host)),
        *("--python", str(host_python(host))),
        f"--host-arguments={shlex.join([*arguments, '--base-directory', str(base)])}",
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dev.py batch-demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2, help="how many ComfyUIs run (default 2)")
    parser.add_argument("--comfyui", type=Path, help="a ComfyUI folder to use instead of the downloaded one")
    options = parser.parse_args(arguments)
    models = small_models()
    lay_out(FOLDER)
    server = HostServer(host=get_host(options.comfyui), base=FOLDER / "comfyui", models=models.models)  # never started
    wanted = run_command(FOLDER, server.host, server.base, options.workers)
    print(f"relay-batch {shlex.join(wanted)}", flush=True)
    threads = str(max(1, (os.cpu_count() or 1) // options.workers))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        **models.environment(),
        "PYTHONPATH": str(ROOT / "batch"),
    }
    with subprocess.Popen([sys.executable, "-m", "relay_batch.cli", *wanted], env=environment) as run:
        while True:
            with suppress(KeyboardInterrupt):  # the run gets it too, and ends by itself
                return run.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
