"""The lower bound: only the UNet's forward passes, in a separate process."""

from __future__ import annotations

import time
from typing import Any

from .apart import Apart
from .glibc import minor_faults, per_step
from .models import BenchModel
from .settings import Settings


class BareForwards:
    """Forward passes of a diffusers folder's UNet at batch 2, with the tensors of a run with guidance."""

    def __init__(self, folder: str, side: int, dtype: str, device: str) -> None:
        import torch
        from diffusers import UNet2DConditionModel

        self.torch = torch
        weights: Any = getattr(torch, dtype)
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=weights)
        self.unet = unet.to(device).eval().requires_grad_(False)
        self.device = device
        config = self.unet.config
        make = {"device": device, "dtype": weights}
        self.sample = torch.randn(2, 4, side // 8, side // 8, **make)
        self.text = torch.randn(2, 77, config.cross_attention_dim, **make)
        self.added = None
        if config.addition_embed_type == "text_time":
            pooled = self.unet.add_embedding.linear_1.in_features - 6 * config.addition_time_embed_dim
            self.added = {
                "text_embeds": torch.randn(2, pooled, **make),
                "time_ids": torch.full((2, 6), float(side), **make),
            }

    def run(self, count: int) -> dict[str, float]:
        """Seconds and minor page faults per forward pass, over `count` passes. The first extra pass isn't counted, like a run's first step."""
        torch = self.torch
        with torch.inference_mode():
            self.unet(self.sample, torch.tensor(999, device=self.device), self.text, added_cond_kwargs=self.added)
            self._wait()
            faults, began = minor_faults(), time.perf_counter()
            for step in range(count):
                timestep = torch.tensor(999 - step, device=self.device)
                self.unet(self.sample, timestep, self.text, added_cond_kwargs=self.added, return_dict=False)
            self._wait()
            seconds = (time.perf_counter() - began) / count
        return {"denoising": seconds, **per_step("denoising", faults, minor_faults(), count)}

    def _wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()


def bare_forwards(model: BenchModel, settings: Settings) -> Apart:
    return Apart(BareForwards, folder=str(model.folder), side=model.side, dtype=model.dtype, device=settings.device)
