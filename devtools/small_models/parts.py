"""The parts of the small models: configs of the published schedulers, tokenizers, text encoders, autoencoders, UNets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .tokenizer import END, save_tokenizer
from .weights import calibrate_autoencoder, fit_unet, random_module

TEXT_WIDTH = 32
IMAGE_EMBED_WIDTH = 48
TIME_IDS_WIDTH = 8
SDXL_VAE_SEED = 7310
BIG_TEXT_ENCODER_SEED = 7321

BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
PNDM = {
    "_class_name": "PNDMScheduler",
    **BETAS,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
EULER = {
    "_class_name": "EulerDiscreteScheduler",
    **BETAS,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
DDPM = {
    "_class_name": "DDPMScheduler",
    **BETAS,
    "beta_schedule": "linear",
    "clip_sample": False,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "thresholding": False,
}
UNCLIP = {
    "_class_name": "UnCLIPScheduler",
    "clip_sample": True,
    "clip_sample_range": 10.0,
    "num_train_timesteps": 1000,
    "prediction_type": "sample",
    "variance_type": "fixed_small_log",
}


def make_tokenizer(folder: Path, pad_token: str = END) -> tuple[Any, int]:
    from transformers import CLIPTokenizer

    vocab_size = save_tokenizer(folder, pad_token)
    return CLIPTokenizer.from_pretrained(folder), vocab_size


def make_text_encoder(
    seed: int, vocab_size: int, *, act: str = "gelu", width: int = TEXT_WIDTH, projected: int | None = None
) -> Any:
    """A CLIP text encoder, with a projection of width `projected` if given."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projected or width,
        num_hidden_layers=3,
        num_attention_heads=2,
        hidden_act=act,
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
    )
    return random_module(lambda: (CLIPTextModelWithProjection if projected else CLIPTextModel)(config), seed)


def make_autoencoder(
    seed: int, *, scaling_factor: float, widths: Sequence[int] = (16, 16, 32, 32), **config: Any
) -> Any:
    from diffusers import AutoencoderKL

    layout = {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 64,
        "scaling_factor": scaling_factor,
    }
    vae = random_module(lambda: AutoencoderKL(**{**layout, **config}), seed)
    calibrate_autoencoder(vae, seed)
    return vae


def make_sdxl_autoencoder() -> Any:
    return make_autoencoder(SDXL_VAE_SEED, scaling_factor=0.13025, force_upcast=True)


def make_unet(seed: int, **config: Any) -> Any:
    from diffusers import UNet2DConditionModel

    layout = {
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
    }
    return random_module(lambda: UNet2DConditionModel(**{**layout, **config}), seed)


def make_sdxl_unet(seed: int, *, cross_attention_dim: int, time_ids: int) -> Any:
    unet = make_unet(
        seed,
        cross_attention_dim=cross_attention_dim,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_IDS_WIDTH,
        projection_class_embeddings_input_dim=TEXT_WIDTH + time_ids * TIME_IDS_WIDTH,
    )

    def conditions(batch: int, generator: torch.Generator) -> dict[str, Any]:
        pooled = torch.randn(batch, TEXT_WIDTH, generator=generator)
        added = {"text_embeds": pooled, "time_ids": torch.full((batch, time_ids), 64.0)}
        return {**text_conditions(cross_attention_dim)(batch, generator), "added_cond_kwargs": added}

    fit_unet(unet, scheduler(EULER), seed, conditions)
    return unet


def text_conditions(width: int) -> Callable[[int, torch.Generator], dict[str, Any]]:
    return lambda batch, generator: {"encoder_hidden_states": torch.randn(batch, 77, width, generator=generator)}


def image_conditions(batch: int, generator: torch.Generator) -> dict[str, Any]:
    embeds = torch.randn(batch, IMAGE_EMBED_WIDTH, generator=generator)
    return {"encoder_hidden_states": None, "added_cond_kwargs": {"image_embeds": embeds}}


def scheduler(config: dict[str, Any]) -> Any:
    import diffusers

    return getattr(diffusers, config["_class_name"]).from_config(config)


def save(pipeline: Any, folder: Path, scheduler_config: dict[str, Any]) -> Path:
    """Saves the pipeline with the published scheduler config: diffusers would add the current version's defaults."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(scheduler_config, indent=2), encoding="utf-8"
    )
    return folder
