"""The memory that Super Resolution needs in addition to its weights, for several picture sizes, each in a separate process.

    PYTHONPATH=devtools python devtools/benchmarks/upscale_memory.py        the published model's layout at half its widths
    PYTHONPATH=devtools python devtools/benchmarks/upscale_memory.py --scale 1       at full width (random weights; slow on a CPU)

Prints how much the resident memory grew at its peak, and the run's time. One step, guidance on.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

RUNS = ((128, 128), (256, 128), (512, 128), (128, 64), (512, 64), (256, 0))
"""(the picture's side, tile_size), both in pixels."""


def make_model(scale: float) -> Any:
    """The published layout with its widths times `scale` and random weights."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    from diffusers_relay.pipelines.model.components import PipelineComponents
    from diffusers_relay.pipelines.model.family_table import SUPER_RESOLUTION
    from small_models.parts import scheduler
    from small_models.upscalers import LOW_RES_SCHEDULER, X4_SCHEDULER
    from support.without_host import load

    def widths(*full: int) -> tuple[int, ...]:
        return tuple(int(width * scale) for width in full)

    small = load("x4_upscaler")
    unet = UNet2DConditionModel(
        sample_size=128,
        in_channels=7,
        out_channels=4,
        block_out_channels=widths(256, 512, 512, 1024),
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
        only_cross_attention=(True, True, True, False),
        cross_attention_dim=small["unet"].config.cross_attention_dim,
        attention_head_dim=8,
        use_linear_projection=True,
        num_class_embeds=1000,
    )
    vae = AutoencoderKL(
        block_out_channels=widths(128, 256, 512),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.08333,
    )
    modules = dict(small.modules) | {"unet": unet.eval(), "vae": vae.eval(), "scheduler": scheduler(X4_SCHEDULER)}
    modules["low_res_scheduler"] = DDPMScheduler.from_config(LOW_RES_SCHEDULER)
    return PipelineComponents(SUPER_RESOLUTION, "measured", modules, torch.float32)


def measure(scale: float, side: int, tile_size: int) -> dict[str, float]:
    import torch

    from relay_host.pack import prepare_pack

    prepare_pack()
    from diffusers_relay.pipelines.base.monitor import SilentMonitor
    from diffusers_relay.pipelines.device.offload import PlainOffload
    from diffusers_relay.pipelines.device.runtime import Runtime
    from diffusers_relay.pipelines.runs.super_resolution import SuperResolutionSettings, super_resolution
    from support.without_host import encode

    model = make_model(scale)
    prompt, runtime = encode(model, "a cat"), Runtime(PlainOffload(), SilentMonitor())

    def run(side: int) -> None:
        settings = SuperResolutionSettings(1, 9.0, 20, 0, tile_size)
        super_resolution(model, prompt, settings, runtime, image=torch.rand(1, side, side, 3))

    with torch.inference_mode():
        run(16)  # loads the libraries and whatever they keep
        before, began = peak(), time.perf_counter()
        run(side)
    return {"MB": peak() - before, "seconds": time.perf_counter() - began}


def peak() -> float:
    """The peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.5, help="factor for the published model's widths")
    parser.add_argument("--runs", default="", help="SIDE:TILE,...; default: a selection")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, tile_size = map(int, options.one.split(":"))
        print(json.dumps(measure(options.scale, side, tile_size)))
        return 0
    runs = [tuple(map(int, run.split(":"))) for run in options.runs.split(",") if run] or list(RUNS)
    for side, tile_size in runs:
        command = [sys.executable, __file__, "--scale", str(options.scale), "--one", f"{side}:{tile_size}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        got = json.loads(done.stdout.splitlines()[-1])
        print(f"{side:5} px, tile_size {tile_size:4}: {got['MB']:7.0f} MB  {got['seconds']:6.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
