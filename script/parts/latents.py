"""Latents in a script: [B, C, h, w] in the model's scale, as the pipelines take and give them."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor


def seeded(*seeds: int) -> list[torch.Generator]:
    """One generator a picture, on the CPU: the same noise on every device."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@torch.no_grad()
def encode(
    pipeline: Any,
    pictures: torch.Tensor,
    generators: list[torch.Generator] | None = None,
) -> torch.Tensor:
    """Pictures -> latents. With generators they are drawn as the pipelines draw them, without they are the most likely ones."""
    vae = pipeline.vae
    dtype = vae.dtype
    if getattr(vae.config, "force_upcast", False) and hasattr(pipeline, "upcast_vae"):
        vae.to(torch.float32)  # this VAE overflows in half precision
    pixels = (2 * pictures - 1).to(vae.device, vae.dtype)
    drawn = []
    for index, one in enumerate(pixels.split(1)):
        distribution = vae.encode(one).latent_dist
        drawn.append(
            distribution.mode()
            if generators is None
            else distribution.sample(generators[index])
        )
    vae.to(dtype)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (torch.cat(drawn).to(dtype) - shift) * vae.config.scaling_factor


@torch.no_grad()
def decode(pipeline: Any, latents: torch.Tensor, tiled: bool = False) -> torch.Tensor:
    """Latents -> pictures, [B, 3, H, W] in 0..1."""
    vae = pipeline.vae
    dtype = vae.dtype
    if (
        getattr(vae.config, "force_upcast", False)
        and hasattr(pipeline, "upcast_vae")
        and dtype == torch.float16
    ):
        vae.to(torch.float32)  # this VAE overflows in half precision
    if tiled:
        vae.enable_tiling()
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    raw = latents.float() / vae.config.scaling_factor + shift
    pictures = vae.decode(raw.to(vae.device, vae.dtype)).sample
    if tiled:
        vae.disable_tiling()
    vae.to(dtype)
    return VaeImageProcessor().postprocess(pictures, output_type="pt").float().cpu()


def only_under_mask(
    latents: torch.Tensor, kept: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The latents where the mask is 1, and those that were kept elsewhere."""
    repaint = torch.nn.functional.interpolate(mask, size=latents.shape[-2:]).to(latents)
    return repaint * latents + (1 - repaint) * kept.to(latents)


def keep_unmasked(
    begin: torch.Tensor, mask: torch.Tensor, generators: list[torch.Generator]
) -> Callable[..., Any]:
    """A callback that restores what the mask leaves, after each step: with the noise of the step, and clean at the end.

    begin: the latents at the start. mask: 1 is repainted. generators: in the state in which the run draws its noise.
    """
    mask = torch.nn.functional.interpolate(
        mask, size=begin.shape[-2:], mode="bilinear"
    ).clamp(0, 1)
    noise = torch.cat(
        [
            torch.randn(1, *begin.shape[1:], generator=one, dtype=begin.dtype)
            for one in generators
        ]
    )

    def callback(
        pipeline: Any, step: int, timestep: Any, values: dict[str, Any]
    ) -> dict[str, Any]:
        latents = values["latents"]
        timesteps = pipeline.scheduler.timesteps[-pipeline.num_timesteps :]
        kept = begin.to(latents)
        if step + 1 < len(timesteps):
            kept = pipeline.scheduler.add_noise(
                kept, noise.to(latents), timesteps[step + 1 : step + 2]
            )
        repaint = mask.to(latents)
        values["latents"] = repaint * latents + (1 - repaint) * kept
        return values

    return callback


def turned_and_scaled(latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Stretched to a size. The channels of a pixel are a vector that turns from one pixel to the next (bislerp)."""
    return turned_along(turned_along(latents, width, -1), height, -2)


def turned_along(latents: torch.Tensor, length: int, axis: int) -> torch.Tensor:
    def placed(numbers: torch.Tensor) -> torch.Tensor:
        row = numbers.float().view(1, 1, 1, -1)
        return torch.nn.functional.interpolate(
            row, (1, length), mode="bilinear"
        ).flatten()

    old = torch.arange(latents.shape[axis])
    at, following = placed(old), placed((old + 1).clamp(max=len(old) - 1))
    one = latents.float().index_select(axis, at.long().to(latents.device))
    other = latents.float().index_select(axis, following.long().to(latents.device))
    share = (
        (at - at.floor()).to(latents.device).view((-1, *(1 for _ in range(-axis - 1))))
    )
    lengths = [vector.norm(dim=1, keepdim=True) for vector in (one, other)]
    units = [
        torch.where(size == 0, 0.0, vector / size)
        for vector, size in zip((one, other), lengths)
    ]
    cosine = (units[0] * units[1]).sum(dim=1, keepdim=True)
    angle = cosine.acos()
    parts = [(1 - share) * angle, share * angle]
    turned = sum(part.sin() / angle.sin() * unit for part, unit in zip(parts, units))
    turned = turned * (lengths[0] * (1 - share) + lengths[1] * share)
    turned = torch.where(cosine > 1 - 1e-5, one, turned)
    opposite = one * (1 - share) + other * share
    return torch.where(cosine < 1e-5 - 1, opposite, turned)
