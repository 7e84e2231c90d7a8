"""Writes graphs as scripts, runs them apart from the tests and the server, and compares their pictures with the graphs'."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusers_relay.script.known_models import Shelf
from diffusers_relay.script.write import write_script
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer

from . import script_process

Prompt = dict[str, dict[str, Any]]
NEAR_AN_EDGE = 2 * 255 * 1e-5
"""The share of values that are so near to a rounding edge that a difference of 1e-5 can move them by one: as in support.pixels."""
RECORDED = Path(__file__).with_name("example_prompts.json")
"""The examples in API format, {name: prompt}."""
NOT_WRITTEN = {
    "mixed_with_comfyui_nodes": "CheckpointLoaderSimple",
    "inpaint_softly": "FeatherMask",
    "ip_adapter_style": "RelayLoadIpAdapterFromHub",
}
"""Examples with a node that has no form in a script, and the node."""


@dataclass(frozen=True)
class ScriptRun:
    pictures: list[np.ndarray]
    """[H, W, 3] uint8, in the order in which the script saved them."""
    error: str = ""
    """What a script that failed printed."""


@dataclass(frozen=True)
class Difference:
    """Between two pictures: the largest one, and the share of values that differ."""

    largest: int
    share: float

    @property
    def is_none(self) -> bool:
        return self.largest == 0

    @property
    def is_rounding(self) -> bool:
        return self.largest <= 1 and self.share <= NEAR_AN_EDGE


def shelf_of(models: SmallModels) -> Shelf:
    return Shelf(models.models, models.hub_cache)


def written(prompt: Prompt, models: SmallModels, **options: Any) -> str:
    return write_script(prompt, shelf_of(models), **options)


def run_scripts(
    scripts: Mapping[str, str], workplace: Path, input_folder: Path, models: SmallModels
) -> dict[str, ScriptRun]:
    """Runs all scripts, {name: text}, one after the other, offline and with no path to this project's code."""
    workplace.mkdir(parents=True, exist_ok=True)
    for name, text in scripts.items():
        (workplace / f"{name}.py").write_text(text, "utf-8")
        folder = workplace / name
        folder.mkdir()
        (folder / "input").symlink_to(input_folder.resolve(), target_is_directory=True)
        (folder / "models").symlink_to(models.models.resolve(), target_is_directory=True)
    environment = {**os.environ, **models.environment(), "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script_process.__file__, str(workplace), *scripts]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    failed = done.stdout.split()
    runs = {}
    for name in scripts:
        said = (workplace / f"{name}.log").read_text("utf-8", errors="replace")
        files = sorted(
            (workplace / name).glob("output/**/*.png"), key=lambda file: (file.stat().st_mtime_ns, file.name)
        )
        runs[name] = ScriptRun([read(file) for file in files], said[-1500:] if name in failed else "")
    return runs


def pictures_of(server: HostServer, prompt: Prompt, seconds: float = 120) -> list[np.ndarray]:
    """What the graph saves and shows, in the order of its nodes."""
    result = server.run(prompt, timeout=seconds).raise_for_error()
    ends = sorted(result.outputs, key=lambda id: int(id) if id.isdecimal() else 10**9)
    return [read(path) for id in ends for path in result.images(id)]


def read(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.array(picture.convert("RGB"))


def differences(expected: Sequence[np.ndarray], pictures: Sequence[np.ndarray]) -> list[Difference]:
    assert [one.shape for one in expected] == [one.shape for one in pictures]
    found = []
    for one, other in zip(expected, pictures):
        by = np.abs(one.astype(int) - other.astype(int))
        found.append(Difference(int(by.max()), float((by > 0).mean())))
    return found
