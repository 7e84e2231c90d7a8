"""Converts images between the host's IMAGE ([B, H, W, C] float 0..1) and what diffusers takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import RelayError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

KIND_OF_CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Extent:
    """A size in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    def floored(self, multiple: int) -> Extent:
        return Extent(self.width // multiple * multiple, self.height // multiple * multiple)

    def nearest(self, multiple: int) -> Extent:
        """The nearest size that is divisible by ``multiple``, at least ``multiple``."""
        return Extent(
            max(1, (self.width + multiple // 2) // multiple) * multiple,
            max(1, (self.height + multiple // 2) // multiple) * multiple,
        )


def extent_of(images: torch.Tensor) -> Extent:
    """The size of an IMAGE."""
    return Extent(width=images.shape[2], height=images.shape[1])


def check_extent(
    extent: Extent, multiple: int, title: str, what: str = "width, height", greatest: int | None = None
) -> None:
    """Checks a size.

    Raises:
        RelayError: the size is not divisible by ``multiple`` (the message has the nearest one that is), is empty, or a
            side is longer than ``greatest`` pixels.
    """
    if min(extent.width, extent.height) < 1:
        raise RelayError(f"{what}: {extent} has no pixels.")
    if greatest is not None and max(extent.width, extent.height) > greatest:
        raise RelayError(f"{what}: {extent} is too large. Neither side may be longer than {greatest}.")
    nearest = extent.nearest(multiple)
    if nearest != extent:
        raise RelayError(
            f"{what}: {title} can't make {extent}, only multiples of {multiple}. The nearest is {nearest}. "
            "Resize the image, or change width and height, to that."
        )


def as_rgb(images: torch.Tensor) -> torch.Tensor:
    """[B, H, W, C] as [B, H, W, 3] float32 in 0..1, without alpha and with grey repeated, like the host's VAEEncode.

    Raises:
        RelayError: as in :func:`as_unclamped_rgb`.
    """
    return as_unclamped_rgb(images).clamp(0, 1)


def as_unclamped_rgb(images: torch.Tensor) -> torch.Tensor:
    """:func:`as_rgb` without clamping, because control images mark holes with -1.

    Raises:
        RelayError: the rank or channel count is wrong, the batch or the images are empty, or a value is NaN or infinite.
    """
    if images.ndim != 4 or images.shape[-1] not in KIND_OF_CHANNELS:
        raise RelayError(
            f"image: expected [batch, height, width, channels] with 1 (grey), 3 (RGB) or 4 (RGBA) channels, got shape {list(images.shape)}."
        )
    if images.shape[0] == 0:
        raise RelayError("image: the batch is empty. Connect at least one image.")
    if min(images.shape[1:3]) < 1:
        raise RelayError(f"image: {extent_of(images)} has no pixels.")
    images = images.expand(-1, -1, -1, 3) if images.shape[-1] == 1 else images[..., :3]
    images = images.float()
    if not images.isfinite().all():
        raise RelayError("image: some of its values are NaN or infinite. Check the node that made it.")
    return images


def to_pil(image: torch.Tensor) -> Image:
    """One [H, W, 3] image in 8 bits, rounded to the nearest value (exact for an image that was loaded from a file)."""
    import numpy as np
    from PIL import Image as pil

    return pil.fromarray(np.rint(image.cpu().numpy() * 255.0).astype(np.uint8), mode=None)


def to_pixels(images: torch.Tensor, factor: int) -> torch.Tensor:
    """IMAGE -> [B, 3, H, W] in -1..1 float32, with diffusers' image processor.

    An image whose size is not divisible by ``factor`` is passed as PIL, as in a script: the processor scales it down to
    the next multiple with lanczos.

    Raises:
        RelayError: as in :func:`as_rgb`, or an image is smaller than one latent pixel.
    """
    from diffusers.image_processor import VaeImageProcessor

    images = as_rgb(images)
    extent = extent_of(images)
    check_latent_pixel(extent, factor)
    processor = VaeImageProcessor(vae_scale_factor=factor)
    if extent == extent.floored(factor):
        return processor.preprocess(images.movedim(-1, 1))
    return processor.preprocess([to_pil(image) for image in images])


def check_latent_pixel(extent: Extent, factor: int) -> None:
    """Refuses a picture that is smaller than one latent pixel of ``factor`` pixels."""
    if min(extent.width, extent.height) < factor:
        raise RelayError(f"image: {extent} is smaller than one latent pixel ({factor}x{factor}). Use a larger image.")


def to_host_images(decoded: torch.Tensor) -> torch.Tensor:
    """The decoder's [B, 3, H, W] in -1..1 as IMAGE, like the pipelines' ``output_type="pt"``."""
    from diffusers.image_processor import VaeImageProcessor

    pixels = VaeImageProcessor().postprocess(decoded, output_type="pt")
    return pixels.movedim(1, -1).float()


def joined(images: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Single images and batches, by the names of their inputs, as one batch in this order. Channel counts that differ become RGB.

    Raises:
        RelayError: an image's size is not that of the first.
    """
    import torch

    (first, start), *others = images.items()
    if not others:
        return start
    for name, image in images.items():
        if image.ndim != 4:
            raise RelayError(f"{name}: expected [batch, height, width, channels], got shape {list(image.shape)}.")
        if extent_of(image) != extent_of(start):
            raise RelayError(
                f"{name}: {extent_of(image)}, but {first} is {extent_of(start)}. Pictures side by side have the same size: "
                "scale them first, for example with Upscale Image."
            )
    if len({image.shape[-1] for image in images.values()}) == 1:
        return torch.cat(list(images.values()))
    return torch.cat([as_unclamped_rgb(image) for image in images.values()])


def grid(images: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """[rows * columns, H, W, C] images as one [1, rows * H, columns * W, C], row by row. 0 rows or columns: as many as needed.

    Raises:
        RelayError: the number of cells is not the number of images, or there are no images.
    """
    if images.ndim != 4 or min(images.shape[1:]) == 0:
        raise RelayError(f"images: expected [batch, height, width, channels], got shape {list(images.shape)}.")
    count = images.shape[0]
    if rows < 0 or columns < 0 or count == 0:
        raise RelayError(
            f"rows, columns: can't arrange {count} images in {rows} x {columns} cells. Use numbers of 0 or more."
        )
    if rows == 0 and columns == 0:
        columns = next(n for n in range(1, count + 1) if n * n >= count)
        columns = next(n for n in range(columns, count + 1) if count % n == 0)
    if rows == 0 and count % columns == 0:
        rows = count // columns
    if columns == 0 and count % rows == 0:
        columns = count // rows
    if rows * columns != count:
        fits = ", ".join(f"{n} x {count // n}" for n in range(1, count + 1) if count % n == 0)
        raise RelayError(
            f"rows, columns: {rows} x {columns} cells don't fit exactly {count} images. These do (rows x columns): {fits}."
        )
    height, width, channels = images.shape[1:]
    cells = images.reshape(rows, columns, height, width, channels)
    return cells.permute(0, 2, 1, 3, 4).reshape(1, rows * height, columns * width, channels)
