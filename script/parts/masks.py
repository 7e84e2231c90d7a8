"""Masks in a script: [B, 1, H, W], float32 in 0..1; 1 is repainted."""

import numpy as np
import torch
from PIL import Image


def combined(
    below: torch.Tensor, above: torch.Tensor, left: int, top: int, how: str
) -> torch.Tensor:
    """`above` combined with `below`, with its corner at (left, top). What sticks out is cut off."""
    result = below.clone()
    height = min(above.shape[-2], below.shape[-2] - top)
    width = min(above.shape[-1], below.shape[-1] - left)
    there = (..., slice(top, top + height), slice(left, left + width))
    one, other = below[there], above[..., :height, :width]
    whole, part = one.round().bool(), other.round().bool()
    result[there] = {
        "multiply": one * other,
        "add": one + other,
        "subtract": one - other,
        "and": (whole & part).float(),
        "or": (whole | part).float(),
        "xor": (whole ^ part).float(),
    }[how]
    return result.clamp(0, 1)


def grown(mask: torch.Tensor, pixels: int, rounded: bool) -> torch.Tensor:
    """The mask with its edge moved outwards by some pixels; inwards if the number is negative."""
    sign = 1 if pixels > 0 else -1
    result = sign * mask
    for _ in range(abs(pixels)):
        padded = torch.nn.functional.pad(result, (1, 1, 1, 1), mode="replicate")
        across = torch.nn.functional.max_pool2d(padded[..., 1:-1, :], (1, 3), 1)
        down = torch.nn.functional.max_pool2d(padded[..., :, 1:-1], (3, 1), 1)
        square = torch.nn.functional.max_pool2d(padded, 3, 1)
        result = torch.maximum(across, down) if rounded else square
    return sign * result


def to_repaint(mask: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """The mask in the picture's size, 0 or 1. It is stretched with lanczos, as the pipelines stretch a PIL mask."""
    if tuple(mask.shape[-2:]) != (height, width):
        pixels = (mask[:, 0] * 255).round().cpu().numpy().astype(np.uint8)
        resized = [
            Image.fromarray(one).resize((width, height), Image.Resampling.LANCZOS)
            for one in pixels
        ]
        mask = torch.stack(
            [torch.from_numpy(np.array(one)).float() / 255 for one in resized]
        )[:, None]
    return (mask >= 0.5).float()
