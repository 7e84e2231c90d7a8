"""The benchmarks by name, in the order they run."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from relay_host.paths import ROOT

from .rows import Row
from .settings import Settings

HERE = Path(__file__).parent
BENCHMARKS = {
    "overhead": "graph through the real server / plain script / bare UNet forwards",
    "native": "the pack against ComfyUI's own nodes on the same checkpoint file, first and second run",
    "second_run": "another seed, prompt, strength: what runs again, and its cost on top of the bare steps",
    "chain": "three models in latents, against decoding and encoding in between",
    "three_models": "SD1.5 -> SDXL refiner -> Kandinsky: time, VAE passes, peak memory",
    "loading": "the pack / from_pretrained / the host's loader, cold and warm; peak memory",
    "startup": "what the pack adds to the host's startup",
    "options": "each option of RelayOptimize: time and relative error",
    "never_twice": "number of encodes and loads in a sweep of four strengths",
    "allocator": "the pack's runs on a CPU with glibc's allocator set to keep its memory, against the default",
    "peers": "other packs on the same models (--peers DIR)",
}
SCRIPTS = {
    "working_memory": "the formulas for working memory against the peaks of the real architectures",
    "upscale_memory": "the same for the upscalers",
    "gpu_memory": "the same on a GPU",
}
"""Separate scripts in this folder, which print their own tables. They can also be run by name."""
GPU_ONLY = {"gpu_memory"}


def scripts() -> dict[str, str]:
    return {name: text for name, text in SCRIPTS.items() if (HERE / f"{name}.py").is_file()}


def rows_of(name: str) -> Callable[[Settings], Iterable[Row]]:
    run: Callable[[Settings], Iterable[Row]] = importlib.import_module(f".{name}", __package__).run
    return run


def run_script(name: str) -> int:
    return subprocess.call([sys.executable, str(HERE / f"{name}.py")], cwd=ROOT)
