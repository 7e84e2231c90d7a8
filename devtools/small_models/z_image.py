"""A small Z-Image: an LLM as text encoder, a transformer over one stream of text and patches, and Flux.1's autoencoder."""

from __future__ import annotations

from pathlib import Path

import torch

from .parts import save, scheduler
from .qwen import make_qwen3, make_qwen_tokenizer
from .stable_diffusion_3 import fit_velocity, make_sd3_autoencoder
from .weights import random_module

FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "use_dynamic_shifting": False,
    "shift": 3.0,
}
WIDTH = 48
"""Of a token of the text."""
SCALE, SHIFT = 0.3611, 0.1159
VAE_SEED = 9311
"""Flux.1's, whose autoencoder Z-Image has."""


def make_z_image(folder: Path, *, seed: int = 9419) -> Path:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    transformer = random_module(
        lambda: ZImageTransformer2DModel(
            in_channels=16,
            dim=64,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=4,
            n_kv_heads=4,
            cap_feat_dim=WIDTH,
            axes_dims=[8, 4, 4],
            axes_lens=[1536, 512, 512],
        ),
        seed + 1,
    )

    def run(noisy: torch.Tensor, sigmas: torch.Tensor, generator: torch.Generator) -> object:
        text = 0.3 * torch.randn(len(noisy), 20, WIDTH, generator=generator)
        return transformer(list(noisy[:, :, None]), 1 - sigmas, list(text))

    # it predicts clean - noise, and its patches have the channels last
    layer = transformer.all_final_layer["2-1"].linear
    fit_velocity(layer, seed, run, lambda velocity: -velocity.permute(0, 2, 3, 4, 5, 1))
    pipeline = ZImagePipeline(
        vae=make_sd3_autoencoder(VAE_SEED, SCALE, SHIFT),
        text_encoder=make_qwen3(seed + 2, WIDTH),
        tokenizer=make_qwen_tokenizer(folder / "tokenizer"),
        transformer=transformer,
        scheduler=scheduler(FLOW),
    )
    return save(pipeline, folder, FLOW)
