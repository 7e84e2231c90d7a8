"""The plain script: diffusers' own image-to-image pipeline, called as in its documentation, in a separate process."""

from __future__ import annotations

import time
from typing import Any

from relay_host.paths import WORK

from .apart import Apart
from .glibc import minor_faults, per_step
from .graphs import NEGATIVE, Request, write_picture
from .models import BenchModel
from .settings import Settings


class PlainScript:
    def __init__(self, folder: str, picture: str, dtype: str, device: str) -> None:
        import torch
        from diffusers import AutoPipelineForImage2Image, EulerDiscreteScheduler
        from PIL import Image

        self.torch = torch
        weights: Any = getattr(torch, dtype)
        pipeline = AutoPipelineForImage2Image.from_pretrained(folder, dtype=weights, use_safetensors=True)
        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline.to(device)
        with Image.open(picture) as opened:
            self.picture = opened.convert("RGB")

    def run(self, prompt: str, strength: float, steps: int, guidance_scale: float, seed: int) -> dict[str, float]:
        """Seconds of the whole call; on the CPU, also seconds per step, from the end of the first to the end of the last; page faults."""
        times: list[float] = []
        faults: list[int | None] = []

        def after_step(_: Any, __: int, ___: Any, values: dict[str, Any]) -> dict[str, Any]:
            times.append(time.perf_counter())
            faults.append(minor_faults())
            return values

        before, began = minor_faults(), time.perf_counter()
        self.pipeline(
            prompt,
            negative_prompt=NEGATIVE,
            image=self.picture,
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=self.torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=after_step,
        )
        whole = time.perf_counter() - began
        return {
            "whole": whole,
            "denoising": (times[-1] - times[0]) / (len(times) - 1),
            **per_step("whole", before, minor_faults(), len(times)),
            **per_step("denoising", faults[0], faults[-1], len(times) - 1),
        }

    def count(self, prompt: str, strengths: list[float], steps: int) -> dict[str, int]:
        """Counts the texts and pictures that the models encode in runs with these strengths."""
        from . import counting

        counting.install()
        counting.take()
        for strength in strengths:
            self.run(prompt, strength, steps, 7.5, 0)
        calls = counting.take()
        return {what: sum(shape[0] for name, shape in calls if name == what) for what in ("encode", "text", "decode")}


def plain_script(model: BenchModel, settings: Settings) -> Apart:
    picture = write_picture(WORK / "bench" / f"picture-{model.side}.png", model.side)
    return Apart(PlainScript, folder=str(model.folder), picture=str(picture), dtype=model.dtype, device=settings.device)


def script_arguments(request: Request) -> dict[str, Any]:
    return {
        "prompt": request.prompt,
        "strength": request.strength,
        "steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "seed": request.seed,
    }
