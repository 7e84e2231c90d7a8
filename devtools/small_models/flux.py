"""A small Flux.1: CLIP for the pooled embedding, T5 for the tokens, a transformer of double and single blocks, a VAE of 16 channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .parts import TEXT_WIDTH, make_text_encoder, make_tokenizer, save, scheduler
from .stable_diffusion_3 import fit_velocity, make_sd3_autoencoder
from .t5 import make_t5, make_t5_tokenizer
from .weights import random_module

DEV = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
SCHNELL = {**DEV, "shift": 1.0, "use_dynamic_shifting": False}
WIDTH = 96
"""Of a token of the text."""
SCALE, SHIFT = 0.3611, 0.1159
VAE_SEED = 9311
"""One for all models, as dev and schnell have the same autoencoder."""


def make_flux(folder: Path, *, dev: bool = True, seed: int = 9337) -> Path:
    """`dev`: guidance is an input of the transformer, and the noise levels depend on the size. Otherwise it is as schnell."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    tokenizer, vocab_size = make_tokenizer(folder / "tokenizer")
    transformer = random_module(
        lambda: FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=4,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=TEXT_WIDTH,
            guidance_embeds=dev,
            axes_dims_rope=(4, 6, 6),
        ),
        seed + 1 + dev,
    )

    def run(noisy: torch.Tensor, sigmas: torch.Tensor, generator: torch.Generator) -> object:
        batch = len(noisy)
        return transformer(
            hidden_states=FluxPipeline._pack_latents(noisy, *noisy.shape),
            timestep=sigmas,
            guidance=1 + 4 * torch.rand(batch, generator=generator) if dev else None,
            encoder_hidden_states=0.3 * torch.randn(batch, 20, WIDTH, generator=generator),
            pooled_projections=torch.randn(batch, TEXT_WIDTH, generator=generator),
            txt_ids=torch.zeros(20, 3),
            img_ids=FluxPipeline._prepare_latent_image_ids(batch, 4, 4, "cpu", torch.float32),
        )

    fit_velocity(transformer.proj_out, seed, run, lambda patches: patches.permute(0, 2, 3, 1, 4, 5))
    flow: dict[str, Any] = DEV if dev else SCHNELL
    pipeline = FluxPipeline(
        vae=make_sd3_autoencoder(VAE_SEED, SCALE, SHIFT),
        text_encoder=make_text_encoder(seed + 3, vocab_size, act="quick_gelu"),
        text_encoder_2=make_t5(seed + 4, WIDTH),
        tokenizer=tokenizer,
        tokenizer_2=make_t5_tokenizer(folder / "tokenizer_2"),
        transformer=transformer,
        scheduler=scheduler(flow),
    )
    return save(pipeline, folder, flow)
