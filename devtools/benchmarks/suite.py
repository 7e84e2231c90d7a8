"""The benchmarks by name, in the order in which they run."""

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
    "native": "against ComfyUI's own nodes on the same checkpoint file, first and second run",
    "second_run": "another seed, prompt, strength: what runs again, and its cost over the bare steps",
    "chain": "three models in latents against decoding and encoding between",
    "three_models": "SD1.5 -> SDXL refiner -> Kandinsky: time, VAE passes, peak memory",
    "loading": "the pack / from_pretrained / the host's loader, cold and warm; peak memory",
    "startup": "what the pack costs a host that starts",
    "options": "each option of RelayOptimize: time and relative error",
    "never_twice": "encodes and loads over a sweep of four strengths, counted",
    "allocator": "glibc's allocator set to keep its memory, against as it comes: the pack's runs on a CPU",
    "peers": "other packs on the same models (--peers DIR)",
}
SCRIPTS = {
    "working_memory": "the formulas for working memory against the peaks of the real architectures",
    "upscale_memory": "the same for the upscalers",
    "gpu_memory": "the same on a GPU",
}
"""Scripts of their own in this folder, which print their own tables; those that are there can be run by name too."""
GPU_ONLY = {"gpu_memory"}


def scripts() -> dict[str, str]:
    return {name: text for name, text in SCRIPTS.items() if (HERE / f"{name}.py").is_file()}


def rows_of(name: str) -> Callable[[Settings], Iterable[Row]]:
    run: Callable[[Settings], Iterable[Row]] = importlib.import_module(f".{name}", __package__).run
    return run


def run_script(name: str) -> int:
    return subprocess.call([sys.executable, str(HERE / f"{name}.py")], cwd=ROOT)
