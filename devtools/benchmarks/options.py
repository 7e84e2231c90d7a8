"""The effect of each option of RelayOptimize on the second run's time and on the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from support.graph import read

from .graphs import Built, Request, relay_graph
from .models import BenchModel, bench_model
from .rows import Row, compared, not_there
from .served import BenchServer, TimedRun, quantities, timed
from .settings import Settings
from .timing import interleave

NODE = "RelayOptimize"
DEFAULTS: dict[str, Any] = {
    "compile": "off",
    "attention": "auto",
    "vae_tiling": False,
    "vae_slicing": False,
    "channels_last": False,
}
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("matmul", "onednn"),
    ("attention", "sdpa"),
    ("attention", "xformers"),
    ("attention", "sliced"),
    ("channels_last", True),
    ("vae_tiling", True),
    ("vae_slicing", True),
    ("compile", "default"),
    ("compile", "reduce-overhead"),
    ("compile", "max-autotune"),
)
COMPILED_AIM_GPU = 0.75


def choices(**changed: Any) -> dict[str, Any]:
    """The inputs of RelayOptimize with everything off except `changed`."""
    return {**DEFAULTS, **changed}


def available(server: BenchServer) -> dict[str, Any]:
    """The inputs of RelayOptimize in this version; empty if the node doesn't exist."""
    if not server.has_node(NODE):
        return {}
    inputs = server.object_info(NODE)["input"]
    return {**inputs.get("required", {}), **inputs.get("optional", {})}


def run(settings: Settings) -> Iterator[Row]:
    model = bench_model("sd15", settings)
    with BenchServer(model, settings) as server:
        there = available(server)
        for name, value in OPTIONS:
            title = f"{name}={value}"
            if name not in there:
                yield not_there(title, f"no input {name}" if there else f"no node {NODE}")
            elif name == "compile" and (settings.quick or settings.tiny):
                yield not_there(title, "skipped with --quick: compiling takes minutes")
            else:
                yield option_row(server, model, settings, name, value)
        yield guidance_row(server, model, settings, bool(there))


def option_row(server: BenchServer, model: BenchModel, settings: Settings, name: str, value: Any) -> Row:
    request = Request(settings.run_steps)

    def graph(seed: int, chosen: dict[str, Any]) -> Built:
        return relay_graph(model, request.with_seed(seed), chosen)

    try:
        default = timed(server, graph(0, choices()).prompt)
        first = timed(server, graph(0, choices(**{name: value})).prompt)
        samples = interleave(
            {
                "option": lambda turn: quantities(server, graph(1 + turn, choices(**{name: value}))),
                "default": lambda turn: quantities(server, graph(1 + turn, choices())),
            },
            settings.rounds,
            warm_up=settings.warm_up,
        )
    except AssertionError as error:  # the node rejects the option: keep its message
        return Row(f"{name}={value}", note=f"refused: {str(error).splitlines()[-1]}")
    most = COMPILED_AIM_GPU if name == "compile" and settings.gpu else None
    note = f"first run {first.seconds:.1f} s (default {default.seconds:.1f} s); {difference(server, first, default)}"
    return compared(f"{name}={value}: second run / default", samples, "option.whole", "default.whole", most, note)


def guidance_row(server: BenchServer, model: BenchModel, settings: Settings, has_node: bool) -> Row:
    """guidance_scale 1 skips half of each forward pass, without any option."""

    def guided(seed: int, scale: float) -> dict[str, float]:
        request = Request(settings.run_steps, seed=seed, guidance_scale=scale)
        return quantities(server, relay_graph(model, request, choices() if has_node else None))

    samples = interleave(
        {"one": lambda turn: guided(turn, 1.0), "guided": lambda turn: guided(turn, 7.5)},
        settings.rounds,
        warm_up=settings.warm_up,
    )
    row = compared("guidance_scale 1 / 7.5, per step", samples, "one.denoising", "guided.denoising")
    return (
        row
        if not settings.gpu
        else Row(row.what, note="not measured on a GPU, where steps are reported before they finish")
    )


def difference(server: BenchServer, run: TimedRun, default: TimedRun) -> str:
    """The relative RMS error of the latents and of the pictures."""
    latents = [latent_of(server, one) for one in (run, default)]
    pictures = [picture_of(one) for one in (run, default)]
    return f"relative error {relative(*latents):.1e} (latent), {relative(*pictures):.1e} (8-bit picture)"


def relative(found: Any, expected: Any) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2)) / np.sqrt(np.mean(expected**2)))


def latent_of(server: BenchServer, run: TimedRun) -> Any:
    from safetensors.numpy import load_file

    (entry,) = (entry for output in run.result.outputs.values() for entry in output.get("latents", []))
    return load_file(server.folders[entry["type"]] / entry["subfolder"] / entry["filename"])["latent_tensor"]


def picture_of(run: TimedRun) -> Any:
    (node,) = (node for node, output in run.result.outputs.items() if output.get("images"))
    return read(run.result.images(node)[0]).astype(np.float64)
