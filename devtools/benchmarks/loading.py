"""Loading with the pack, from_pretrained and the host's own loader, cold and warm; and peak memory against the weights' size."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from relay_host.comfyui import get_host
from relay_host.pack import enter_host, prepare_pack
from relay_host.paths import WORK

from .apart import once
from .memory import PeakWatcher, forget_pages
from .models import BenchModel, bench_model
from .rows import Aim, Row, compared
from .settings import Settings
from .timing import Quantities, interleave, median

TIME_AIM = 1.0
PEAK_AIM = 1.05
PEAK_NOTE = "resident set above the start, including pages of mapped files; without them"


def run(settings: Settings) -> Iterator[Row]:
    model = bench_model("sd15", settings, checkpoint=True)
    for cold in (True, False):
        samples = interleave(
            {
                "ours": contender(load_ours, model.folder, model, cold),
                "pretrained": contender(load_pretrained, model.folder, model, cold),
                "ours_file": contender(load_ours_file, model.checkpoint, model, cold),
                "host": contender(load_with_host, model.checkpoint, model, cold),
            },
            settings.rounds,
            warm_up=0 if cold else settings.warm_up,
        )
        state = "warm" if not cold else "cold" if samples["ours.dropped"][0] else "warm (this system can't drop pages)"
        note = "until every weight has been read once"
        yield compared(f"{state}: folder / from_pretrained", samples, "ours.ready", "pretrained.ready", TIME_AIM, note)
        yield compared(f"{state}: folder / the host's loader", samples, "ours.ready", "host.ready", note=note)
        yield compared(f"{state}: file / the host's loader", samples, "ours_file.ready", "host.ready", note=note)
    for name, title in (
        ("ours", "folder"),
        ("ours_file", "file"),
        ("pretrained", "from_pretrained"),
        ("host", "the host's loader"),
    ):
        peak, size = median(samples, f"{name}.peak"), median(samples, f"{name}.size")
        private = f"{median(samples, f'{name}.private'):.0f} MB"
        aim = Aim("ratio", PEAK_AIM) if name.startswith("ours") else None
        yield Row(f"peak, {title} / size of the weights", peak, size, "MB", peak / size, aim, f"{PEAK_NOTE} {private}")


def contender(
    load: Callable[..., Quantities], path: Path, model: BenchModel, cold: bool
) -> Callable[[int], Quantities]:
    def turn(_: int) -> Quantities:
        dropped = cold and forget_pages(model.weight_files())
        return {**once(load, default_allocator=True, path=str(path), dtype=model.dtype), "dropped": float(dropped)}

    return turn


def measured(load: Callable[[], list[Any]]) -> Quantities:
    """`load` returns the modules. Measures the seconds until it returns and until every page of every weight has been read."""
    with PeakWatcher() as watcher:
        began = time.perf_counter()
        modules = load()
        loaded = time.perf_counter() - began
        size = 0
        for tensor in {id(value): value for module in modules for value in module.parameters()}.values():
            size += tensor.numel() * tensor.element_size()
            tensor.detach().flatten()[:: 1024 // tensor.element_size()].sum()
        ready = time.perf_counter() - began
    peak = watcher.peak
    return {"loaded": loaded, "ready": ready, "peak": peak.resident, "private": peak.private, "size": size / 1e6}


def load_ours(path: str, dtype: str) -> Quantities:
    import torch

    prepare_pack()
    from diffusers import StableDiffusionImg2ImgPipeline  # noqa: F401

    from diffusers_relay.pipelines.base.monitor import SilentMonitor
    from diffusers_relay.pipelines.loading.folder import load_folder

    return measured(
        lambda: modules_of(load_folder(Path(path), dtype=getattr(torch, dtype), monitor=SilentMonitor()).modules)
    )


def load_ours_file(path: str, dtype: str) -> Quantities:
    import torch

    prepare_pack()
    from diffusers import StableDiffusionImg2ImgPipeline  # noqa: F401

    from diffusers_relay.pipelines.base.monitor import SilentMonitor
    from diffusers_relay.pipelines.loading.single_file import load_checkpoint

    vocabularies = {"clip": get_host() / "comfy" / "sd1_tokenizer"}
    weights = getattr(torch, dtype)
    return measured(
        lambda: modules_of(
            load_checkpoint(
                Path(path), dtype=weights, vocabularies=vocabularies, source="file", monitor=SilentMonitor()
            ).modules
        )
    )


def load_pretrained(path: str, dtype: str) -> Quantities:
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline

    weights = getattr(torch, dtype)
    return measured(
        lambda: modules_of(
            StableDiffusionImg2ImgPipeline.from_pretrained(path, dtype=weights, use_safetensors=True).components
        )
    )


def load_with_host(path: str, dtype: str) -> Quantities:
    """The host chooses its own dtypes: `dtype` isn't used."""
    os.chdir(get_host())
    enter_host(get_host(), WORK / "bench")
    import comfy.sd

    def load() -> list[Any]:
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(path)
        return [model.model, clip.cond_stage_model, vae.first_stage_model]

    return measured(load)


def modules_of(components: Any) -> list[Any]:
    return [value for value in components.values() if hasattr(value, "parameters")]
