"""The diffusers documentation's inpainting scripts, written without the pack's code, like scripts.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, KandinskyV22InpaintPipeline
from PIL import Image

from .control_scripts import Control, controlled
from .scripts import Picture, Prior, generator, loaded


def inpaint(
    model: Path | str,
    image: Picture,
    mask: Picture,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    controls: Sequence[Control] = (),
    width: int | None = 64,
    height: int | None = 64,
    seed: int | Sequence[int] = 0,
    scheduler: Any = None,
    **settings: Any,
) -> Any:
    """SD1.5, SDXL and the refiner. If `image` is a list, `seed` has one seed per picture. settings: more arguments for the pipeline."""
    if controls:
        pipeline, arguments = controlled(AutoPipelineForInpainting, model, controls, "control_image")
    else:
        pipeline, arguments = loaded(AutoPipelineForInpainting, model, {}), {}
    if scheduler is not None:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    many = isinstance(image, list)
    repeat = len(image) if many else 1
    return pipeline(
        [prompt] * repeat if many else prompt,
        negative_prompt=[negative_prompt or ""] * repeat if many else negative_prompt,
        image=image,
        mask_image=mask,
        width=width,
        height=height,
        generator=generator(seed) if isinstance(seed, int) else [generator(one) for one in seed],
        **{"num_inference_steps": 5, "strength": 1.0, "guidance_scale": 7.5, "output_type": "np"}
        | arguments
        | settings,
    ).images


def kandinsky_inpaint(
    model: Path | str,
    image: Picture,
    mask: Picture,
    embeds: Prior,
    *,
    width: int = 64,
    height: int = 64,
    steps: int = 4,
    guidance_scale: float = 4.0,
    seed: int = 0,
    output_type: str = "np",
) -> Any:
    """Uses a decoder for inpainting."""
    pipeline = loaded(KandinskyV22InpaintPipeline, model, {})
    return pipeline(
        image=image,
        mask_image=mask,
        image_embeds=embeds.image_embeds,
        negative_image_embeds=embeds.negative_image_embeds,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator(seed),
        output_type=output_type,
    ).images


@torch.no_grad()
def put_back(
    model: Path | str, image: Image.Image, mask: Image.Image, latents: torch.Tensor, seed: int
) -> torch.Tensor:
    """A script's latents where the mask is white; elsewhere the picture's latents, encoded with this seed."""
    vae = loaded(AutoPipelineForInpainting, model, {}).vae
    pixels = torch.from_numpy(np.array(image).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    original = vae.config.scaling_factor * vae.encode(pixels).latent_dist.sample(generator(seed))
    white = torch.from_numpy(np.array(mask) >= 128)[::8, ::8]
    return torch.where(white, latents, original)


def mask_picture(width: int = 64, height: int = 64, box: tuple[int, int, int, int] = (24, 16, 56, 48)) -> Image.Image:
    """White (repaint) inside the box (left, top, right, bottom), black outside."""
    mask = np.zeros((height, width), np.uint8)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = 255
    return Image.fromarray(mask)


def as_mask(picture: Image.Image) -> torch.Tensor:
    """A grey picture as the host's MASK: [1, H, W] float32 in 0..1."""
    return torch.from_numpy(np.array(picture).astype(np.float32) / 255.0)[None]


@torch.no_grad()
def differential(
    model: Path | str,
    image: Picture | torch.Tensor,
    columns: torch.Tensor,
    prompt: str,
    negative_prompt: str,
    *,
    strength: float,
    seed: int,
    **settings: Any,
) -> torch.Tensor:
    """Differential diffusion, written as a callback: latents in model scale.

    Args:
        model: a plain model, which then gets `image` as latents in model scale, or a Stable Diffusion model for inpainting.
        columns: how much may change in each column of latents.
    """
    inpaints = not isinstance(image, torch.Tensor)
    pipeline = loaded(AutoPipelineForInpainting if inpaints else AutoPipelineForImage2Image, model, {})
    noise_generator = generator(seed)
    if isinstance(image, torch.Tensor):
        begin, more = image, {}
    else:
        white = np.array(columns.repeat_interleave(8) >= 0.5, np.uint8) * 255
        more = {"mask_image": Image.fromarray(np.tile(white, (64, 1))), "width": 64, "height": 64}
        pixels = torch.from_numpy(np.array(image).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        encoded = pipeline.vae.encode(pixels).latent_dist
        begin = pipeline.vae.config.scaling_factor * encoded.sample(generator(seed))
        if strength < 1:  # at full strength, this pipeline does not encode the picture
            encoded.sample(noise_generator)
    noise = torch.randn(begin.shape, generator=noise_generator)

    def restore(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        schedule = pipe.scheduler.timesteps[-pipe.num_timesteps :]
        kept = begin
        if step + 1 < len(schedule):
            kept = pipe.scheduler.add_noise(begin, noise, schedule[step + 1 : step + 2])
        repainted = (columns > 0) & (columns >= schedule[step] / schedule[0])
        return {"latents": torch.where(repainted, values["latents"], kept)}

    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        image=image,
        strength=strength,
        num_inference_steps=5,
        generator=generator(seed),
        output_type="latent",
        callback_on_step_end=restore,
        **more,
        **settings,
    ).images
