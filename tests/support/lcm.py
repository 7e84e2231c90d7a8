"""A small Latent Consistency Model: the small Stable Diffusion with a UNet that reads the guidance scale."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch

from relay_dev.model_folders import small_models


def make_lcm(folder: Path) -> Path:
    sd15 = diffusers.StableDiffusionPipeline.from_pretrained(
        small_models().named["sd15"], torch_dtype=torch.float32, use_safetensors=True
    )
    torch.manual_seed(7121)
    unet = diffusers.UNet2DConditionModel.from_config({**sd15.unet.config, "time_cond_proj_dim": 16})
    missing = unet.load_state_dict(sd15.unet.state_dict(), strict=False).missing_keys
    assert missing == ["time_embedding.cond_proj.weight"]
    torch.nn.init.normal_(unet.time_embedding.cond_proj.weight, std=0.5)
    pipeline = diffusers.LatentConsistencyModelPipeline(
        vae=sd15.vae,
        text_encoder=sd15.text_encoder,
        tokenizer=sd15.tokenizer,
        unet=unet,
        scheduler=diffusers.LCMScheduler.from_config(sd15.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
