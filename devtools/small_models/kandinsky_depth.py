"""A small Kandinsky 2.2 depth ControlNet decoder: a UNet that takes a depth map in addition to the latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .parts import DDPM, IMAGE_EMBED_WIDTH, TEXT_WIDTH, image_conditions, save, scheduler
from .weights import fit_unet, random_module, smooth_picture

HINT_GAIN = 12.0


def make_kandinsky_depth(folder: Path, decoder: Path, *, seed: int = 8461) -> Path:
    """Layout and config of kandinsky-community/kandinsky-2-2-controlnet-depth; as there, the autoencoder is the decoder's."""
    from diffusers import KandinskyV22ControlnetPipeline, UNet2DConditionModel, VQModel

    unet = random_module(
        lambda: UNet2DConditionModel(
            sample_size=8,
            in_channels=8,  # four for the latents, and four for the encoded depth map
            out_channels=8,
            addition_embed_type="image_hint",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            norm_num_groups=8,
            encoder_hid_dim=IMAGE_EMBED_WIDTH,
            encoder_hid_dim_type="image_proj",
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=16,
            resnet_time_scale_shift="scale_shift",
        ),
        seed,
    )
    fit_unet(unet, scheduler(DDPM), seed, hint_conditions, channels=4)
    last_of_hint = unet.add_embedding.input_hint_block[-1]
    last_of_hint.weight.mul_(HINT_GAIN)  # a stack of random layers weakens the hint
    movq = VQModel.from_pretrained(decoder / "movq")
    pipeline = KandinskyV22ControlnetPipeline(unet=unet, scheduler=scheduler(DDPM), movq=movq)
    return save(pipeline, folder, DDPM)


def hint_conditions(batch: int, generator: torch.Generator) -> dict[str, Any]:
    conditions = image_conditions(batch, generator)
    depth = [smooth_picture(seed).mean(1, keepdim=True) / 2 + 0.5 for seed in range(batch)]
    conditions["added_cond_kwargs"]["hint"] = torch.cat(depth).expand(-1, 3, -1, -1)
    return conditions
