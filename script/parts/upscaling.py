"""Upscaling in a script."""

import copy
from typing import Any

import torch


class InTiles:
    """Stands in for a UNet: predicts a large latent tile by tile and blends the overlaps, so that memory is that of a tile."""

    def __init__(self, unet: Any, size: int) -> None:
        self.config, self.dtype = unet.config, unet.dtype
        self.unet, self.size = unet, size

    def __call__(
        self, sample: torch.Tensor, timestep: Any, **conditions: Any
    ) -> tuple[torch.Tensor]:
        def predict(part: torch.Tensor) -> torch.Tensor:
            return self.unet(part, timestep, **conditions)[0]

        return (blended(sample, self.size, predict).to(sample.dtype),)


def starts(length: int, size: int) -> list[int]:
    """Where tiles begin that cover a length evenly and overlap by a quarter or more."""
    if length <= size:
        return [0]
    gaps = -(-(length - size) // (size - size // 4))
    return [round(gap * (length - size) / gaps) for gap in range(gaps + 1)]


def ramp(length: int, edge: int) -> torch.Tensor:
    """[length]: 1 in the middle, falling towards both ends."""
    from_start = (torch.arange(length, dtype=torch.float32) + 0.5) / edge
    return torch.minimum(from_start, from_start.flip(0)).clamp(max=1)


def blended(whole: torch.Tensor, size: int, run: Any, factor: int = 1) -> torch.Tensor:
    """Runs each tile and blends the results. `factor`: how much `run` enlarges a tile."""
    height, width = whole.shape[-2:]
    result, edge = None, size // 4 * factor
    total = torch.zeros(height * factor, width * factor, device=whole.device)
    for top in starts(height, size):
        for left in starts(width, size):
            part = run(whole[..., top : top + size, left : left + size]).float()
            weight = (
                ramp(part.shape[-2], edge)[:, None] * ramp(part.shape[-1], edge)
            ).to(part)
            if result is None:
                result = torch.zeros(*part.shape[:2], *total.shape, device=whole.device)
            rows = slice(top * factor, top * factor + part.shape[-2])
            columns = slice(left * factor, left * factor + part.shape[-1])
            result[..., rows, columns] += part * weight
            total[rows, columns] += weight
    assert result is not None
    return result / total


@torch.no_grad()
def decode_in_tiles(pipeline: Any, latents: torch.Tensor, size: int) -> torch.Tensor:
    """Latents of the x4 upscaler -> pictures, [B, 3, H, W] in 0..1."""
    vae = pipeline.vae

    def decode_tile(part: torch.Tensor) -> torch.Tensor:
        return (vae.decode(part).sample / 2 + 0.5).clamp(0, 1)

    raw = latents.to(vae.dtype) / vae.config.scaling_factor
    return blended(raw, size, decode_tile, factor=4).cpu()


def padded(latents: torch.Tensor, multiple: int, least: int) -> torch.Tensor:
    """Latents with their edge repeated at the right and bottom, up to a size that the UNet can run."""
    height, width = (
        max(least, -(-side // multiple) * multiple) for side in latents.shape[-2:]
    )
    more = (0, width - latents.shape[-1], 0, height - latents.shape[-2])
    return (
        torch.nn.functional.pad(latents, more, mode="replicate")
        if any(more)
        else latents
    )


def with_unet(pipeline: Any, unet: Any) -> Any:
    """The same pipeline with another UNet."""
    other = copy.copy(pipeline)
    other.unet = unet
    return other
