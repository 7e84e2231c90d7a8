"""Small versions of the two Stable Diffusion upscalers: x2 for latents and x4 for pictures.

Their UNets are fitted to predict the picture from their additional inputs, so that a test can see whether these arrive.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from .parts import DDPM, EULER, TEXT_WIDTH, make_text_encoder, make_tokenizer, make_unet, save, scheduler
from .weights import fit_last_layer, quieten_text, random_module, smooth_picture

X2_SCHEDULER = {**EULER, "prediction_type": "original_sample"}
"""Uses the older name for "sample", which only Euler accepts."""
X4_BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "scaled_linear"}
X4_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    **X4_BETAS,
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "trained_betas": None,
}
LOW_RES_SCHEDULER = {**DDPM, **X4_BETAS, "variance_type": "fixed_small"}
NOISE_EMBED_WIDTH = 128
"""The values that the x2 pipeline puts before the pooled text."""
BATCH = 48


def make_x2_upscaler(folder: Path, sd15: Path, *, seed: int = 9203) -> Path:
    """Layout of stabilityai/sd-x2-latent-upscaler; as there, the autoencoder, text encoder and tokenizer are those of `sd15`."""
    from diffusers import AutoencoderKL, StableDiffusionLatentUpscalePipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    unet = random_module(
        lambda: UNet2DConditionModel(
            sample_size=16,
            in_channels=8,
            out_channels=5,  # one extra channel, which the pipeline drops
            down_block_types=("KDownBlock2D",) + ("KCrossAttnDownBlock2D",) * 3,
            mid_block_type=None,
            up_block_types=("KCrossAttnUpBlock2D",) * 3 + ("KUpBlock2D",),
            block_out_channels=(32, 32, 64, 64),
            layers_per_block=1,
            only_cross_attention=False,
            act_fn="gelu",
            norm_num_groups=None,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=16,
            resnet_time_scale_shift="scale_shift",
            time_embedding_type="fourier",
            timestep_post_act="gelu",
            time_cond_proj_dim=NOISE_EMBED_WIDTH + TEXT_WIDTH,
            conv_in_kernel=1,
            conv_out_kernel=1,
        ),
        seed,
    )
    fit_x2(unet, seed)
    pipeline = StableDiffusionLatentUpscalePipeline(
        vae=AutoencoderKL.from_pretrained(sd15 / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(sd15 / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(sd15 / "tokenizer"),
        unet=unet,
        scheduler=scheduler(X2_SCHEDULER),
    )
    return save(pipeline, folder, X2_SCHEDULER)


def make_x4_upscaler(folder: Path, vae_folder: Path, *, seed: int = 9311) -> Path:
    """Layout of stabilityai/stable-diffusion-x4-upscaler, but with attention only where the latents are an eighth as wide."""
    from diffusers import AutoencoderKL, StableDiffusionUpscalePipeline

    tokenizer, vocab_size = make_tokenizer(folder / "tokenizer", pad_token="!")
    vae = AutoencoderKL.from_pretrained(vae_folder)
    unet = make_unet(
        seed,
        in_channels=7,
        out_channels=4,
        block_out_channels=(16, 16, 16, 32),
        down_block_types=("DownBlock2D",) * 3 + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * 3,
        cross_attention_dim=TEXT_WIDTH,
        use_linear_projection=True,
        num_class_embeds=1000,
    )
    fit_x4(unet, vae, seed)
    pipeline = StableDiffusionUpscalePipeline(
        vae=vae,
        text_encoder=make_text_encoder(seed + 1, vocab_size),
        tokenizer=tokenizer,
        unet=unet,
        low_res_scheduler=scheduler(LOW_RES_SCHEDULER),
        scheduler=scheduler(X4_SCHEDULER),
        max_noise_level=350,
    )
    save(pipeline, folder, X4_SCHEDULER)
    low_res = folder / "low_res_scheduler" / "scheduler_config.json"
    low_res.write_text(json.dumps(LOW_RES_SCHEDULER, indent=2), encoding="utf-8")
    return folder


@torch.no_grad()
def fit_x2(unet: Any, seed: int) -> None:
    """Fits the target of Karras et al. (2022), table 1, which matches the pipeline's preconditioning (sigma_data is 1)."""
    generator = torch.Generator("cpu").manual_seed(seed)
    coarse = torch.randn(BATCH, 4, 5, 5, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic")
    given = torch.nn.functional.avg_pool2d(clean, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    noise = torch.randn(clean.shape, generator=generator)
    sigmas = torch.logspace(-1.5, 1.1, BATCH)
    sigma = sigmas[:, None, None, None]
    size = (sigma**2 + 1).sqrt()
    noise_embed = torch.cat([torch.ones(BATCH, NOISE_EMBED_WIDTH // 2), torch.zeros(BATCH, NOISE_EMBED_WIDTH // 2)], 1)
    conditions = {
        "encoder_hidden_states": torch.randn(BATCH, 77, TEXT_WIDTH, generator=generator),
        "timestep_cond": torch.cat([noise_embed, torch.randn(BATCH, TEXT_WIDTH, generator=generator)], 1),
    }
    quieten_text(unet)
    inputs = torch.cat([(clean + sigma * noise) / size, given], 1)
    wanted = (sigma * clean - noise) / size
    fit_last_layer(unet, lambda: unet(inputs, sigmas.log() / 4, **conditions).sample, wanted)


@torch.no_grad()
def fit_x4(unet: Any, vae: Any, seed: int) -> None:
    generator = torch.Generator("cpu").manual_seed(seed)
    pictures = torch.cat([smooth_picture(seed + index, 32) for index in range(BATCH)])
    clean = vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor
    levels = torch.randint(0, 60, (BATCH,), generator=generator)
    small = torch.nn.functional.avg_pool2d(pictures, 4)
    given = scheduler(LOW_RES_SCHEDULER).add_noise(small, torch.randn(small.shape, generator=generator), levels)
    noise = torch.randn(clean.shape, generator=generator)
    timesteps = torch.linspace(1, 999, BATCH).long()
    ddim = scheduler(X4_SCHEDULER)
    text = torch.randn(BATCH, 77, TEXT_WIDTH, generator=generator)
    quieten_text(unet)
    inputs = torch.cat([ddim.add_noise(clean, noise, timesteps), given], 1)
    wanted = ddim.get_velocity(clean, noise, timesteps)
    fit_last_layer(unet, lambda: unet(inputs, timesteps, text, class_labels=levels).sample, wanted)
