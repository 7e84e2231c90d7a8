"""Pictures in a script: [B, 3, H, W], float32 in 0..1."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

INPUT = Path("input")
OUTPUT = Path("output")


def load_picture(name: str) -> torch.Tensor:
    """A picture from the input folder, [1, 3, H, W] in 0..1."""
    with Image.open(INPUT / name) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode == "I":
            picture = picture.point(lambda value: value / 255)
        return to_tensor(picture.convert("RGB"))


def load_mask(name: str, channel: str) -> torch.Tensor:
    """A channel of a picture from the input folder as a mask, [1, 1, H, W] in 0..1. Alpha is inverted: transparent is 1."""
    with Image.open(INPUT / name) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode == "I":
            picture = picture.point(lambda value: value / 255)
        mask = to_tensor(picture.convert("RGBA").getchannel(channel))
    return 1 - mask if channel == "A" else mask


def load_transparency(name: str) -> torch.Tensor:
    """What is transparent in a picture from the input folder, [1, 1, H, W]: 1 where nothing is seen."""
    with Image.open(INPUT / name) as file:
        picture = ImageOps.exif_transpose(file)
        if "A" in picture.getbands() or "transparency" in picture.info:
            return 1 - to_tensor(picture.convert("RGBA").getchannel("A"))
    return torch.zeros(1, 1, 64, 64)


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """[1, channels, H, W] in 0..1."""
    pixels = np.asarray(picture, dtype=np.float32) / 255
    return torch.from_numpy(np.atleast_3d(pixels)).movedim(-1, 0)[None]


def to_pil(pictures: torch.Tensor) -> list[Image.Image]:
    pixels = (pictures * 255).round().movedim(1, -1).cpu().numpy().astype(np.uint8)
    return [Image.fromarray(one) for one in pixels]


def save(pictures: torch.Tensor, name: str) -> None:
    """Writes PNG files to the output folder. Values are cut off and not rounded, as ComfyUI does."""
    pixels = (
        (pictures.float().cpu() * 255)
        .clamp(0, 255)
        .movedim(1, -1)
        .numpy()
        .astype(np.uint8)
    )
    for number, one in enumerate(pixels, 1):
        file = OUTPUT / f"{name}_{number:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(file)


def scaled(
    pictures: torch.Tensor, width: int, height: int, method: str
) -> torch.Tensor:
    """Stretched to a size. Lanczos works in 8 bits, as in PIL."""
    if method != "lanczos":
        return torch.nn.functional.interpolate(
            pictures, size=(height, width), mode=method
        )
    pixels = (
        (pictures * 255).clamp(0, 255).movedim(1, -1).cpu().numpy().astype(np.uint8)
    )
    resized = [
        Image.fromarray(one).resize((width, height), Image.Resampling.LANCZOS)
        for one in pixels
    ]
    return torch.cat([to_tensor(one) for one in resized])


def cut_to_shape(pictures: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """The middle of the pictures, in the proportions of width and height."""
    old_height, old_width = pictures.shape[-2:]
    old, new = old_width / old_height, width / height
    left = round((old_width - old_width * (new / old)) / 2) if old > new else 0
    top = round((old_height - old_height * (old / new)) / 2) if old < new else 0
    return pictures[..., top : old_height - top, left : old_width - left]


def fit(pictures: torch.Tensor, multiple: int = 8) -> torch.Tensor:
    """Scaled down to a size that the model can paint, as the pipelines scale a PIL picture."""
    height, width = (side // multiple * multiple for side in pictures.shape[-2:])
    if (height, width) == tuple(pictures.shape[-2:]):
        return pictures
    return stretched(pictures, width, height)


def stretched(pictures: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Stretched to a size with lanczos, as the pipelines stretch a PIL picture."""
    if (height, width) == tuple(pictures.shape[-2:]):
        return pictures
    resized = [
        one.resize((width, height), Image.Resampling.LANCZOS)
        for one in to_pil(pictures.clamp(0, 1))
    ]
    return torch.cat([to_tensor(one) for one in resized])


def grid(pictures: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """All pictures side by side in one, row by row."""
    _, channels, height, width = pictures.shape
    cells = pictures.reshape(rows, columns, channels, height, width)
    return cells.permute(2, 0, 3, 1, 4).reshape(
        1, channels, rows * height, columns * width
    )


def pasted(
    below: torch.Tensor,
    above: torch.Tensor,
    left: int,
    top: int,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """`above` laid over `below` where the mask is 1, with its corner at (left, top). What sticks out is cut off."""
    result = below.clone()
    height = min(above.shape[-2], below.shape[-2] - top)
    width = min(above.shape[-1], below.shape[-1] - left)
    if height <= 0 or width <= 0:
        return result
    if mask is None:
        mask = torch.ones_like(above[:, :1])
    mask = torch.nn.functional.interpolate(
        mask, size=above.shape[-2:], mode="bilinear"
    )[..., :height, :width]
    there = (..., slice(top, top + height), slice(left, left + width))
    result[there] = mask * above[..., :height, :width] + (1 - mask) * below[there]
    return result


def scaled_like(pictures: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Scaled to the size of other pictures, and cut to their proportions."""
    height, width = first.shape[-2:]
    return scaled(cut_to_shape(pictures, width, height), width, height, "bilinear")
