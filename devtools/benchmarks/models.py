"""The models that the benchmarks run: real architectures, made once under .relay/bench/models, or the small models."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from relay_dev.model_folders import small_models
from relay_host.paths import WORK
from small_models.native_checkpoint import NATIVE_NAME

from .settings import Settings

ROOT = WORK / "bench" / "models"
FULL_SIDES = {"sd15": (256, 512), "sdxl": (256, 1024), "sdxl_refiner": (256, 1024), "kandinsky_decoder": (256, 512)}
"""Pixels: (on the CPU, on a GPU)."""
TINY_SIDE = 128


@dataclass(frozen=True)
class BenchModel:
    kind: str
    name: str
    """The loader's choice."""
    root: Path
    """A host's models folder, which the server links."""
    side: int
    """Pixels."""
    dtype: str

    @property
    def folder(self) -> Path:
        return self.root / "diffusers" / self.name

    @property
    def checkpoint(self) -> Path:
        """The same weights in one file."""
        return self.root / "checkpoints" / f"{self.name}.safetensors"

    def weight_files(self) -> list[Path]:
        return sorted(self.folder.rglob("*.safetensors")) + [file for file in [self.checkpoint] if file.is_file()]


def bench_model(kind: str, settings: Settings, *, dtype: str | None = None, checkpoint: bool = False) -> BenchModel:
    """The model of that kind ("sd15", "sdxl", "sdxl_refiner", "kandinsky_decoder", "kandinsky_prior"); makes it if it doesn't exist.

    checkpoint: also make the single file.
    """
    dtype = dtype or settings.dtype
    if settings.tiny:
        name = NATIVE_NAME if checkpoint else "sdxl_base" if kind == "sdxl" else kind
        return BenchModel(kind, name, small_models().models, TINY_SIDE, dtype)
    side = FULL_SIDES[kind][settings.gpu] if kind in FULL_SIDES else 0
    model = BenchModel(kind, f"bench_{kind}_{dtype}", ROOT, side, dtype)
    make_once(model.folder, partial(make_folder, kind=kind, dtype=dtype))
    if checkpoint:
        make_once(model.checkpoint, partial(make_file, folder=model.folder))
    return model


def make_once(target: Path, make: Callable[[Path], None]) -> None:
    """Calls `make(scratch)` and moves the result to `target`, so that `target` is always complete."""
    if target.exists():
        return
    print(f"making {target.name} (random weights)", file=sys.stderr, flush=True)
    began = time.monotonic()
    scratch = target.parent / "making" / target.name
    shutil.rmtree(scratch.parent, ignore_errors=True)
    scratch.parent.mkdir(parents=True)
    make(scratch)
    scratch.rename(target)
    scratch.parent.rmdir()
    print(f"    {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def make_folder(target: Path, *, kind: str, dtype: str) -> None:
    import torch

    from . import make_models

    weights: Any = getattr(torch, dtype)
    if kind == "kandinsky_decoder":
        make_models.make_kandinsky_decoder(target, weights)
    elif kind == "kandinsky_prior":
        make_models.make_kandinsky_prior(target, weights)
    else:
        make_models.make_stable_diffusion(target, kind, weights)


def make_file(target: Path, *, folder: Path) -> None:
    from .make_models import write_checkpoint

    write_checkpoint(folder, target)
