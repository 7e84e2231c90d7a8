"""The documentation's scripts for a single file, with a local folder of configs.

Source: https://huggingface.co/docs/diffusers/using-diffusers/other-formats
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from reference.scripts import generator


def image_to_image(
    file: Path, config: Path, image: Image.Image, prompt: str, *, strength: float, steps: int, guidance_scale: float
) -> torch.Tensor:
    """Latents in the model's scale, with seed 3."""
    pipeline = StableDiffusionImg2ImgPipeline.from_single_file(str(file), config=str(config), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt,
        image=image,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator(3),
        output_type="latent",
    ).images
