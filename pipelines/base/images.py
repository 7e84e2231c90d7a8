"""Pictures between the host's IMAGE ([B, H, W, C] float 0..1) and what diffusers takes."""

from __future__ import annotations

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
        """The closest size that ``multiple`` divides, at least one multiple."""
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
    """Refuses a size that ``multiple`` does not divide, with the nearest that it does, and sides over ``greatest`` pixels."""
    if min(extent.width, extent.height) < 1:
        raise RelayError(f"{what}: {extent} has no pixels.")
    if greatest is not None and max(extent.width, extent.height) > greatest:
        raise RelayError(f"{what}: {extent} is too large. Neither side may be over {greatest}.")
    nearest = extent.nearest(multiple)
    if nearest != extent:
        raise RelayError(
            f"{what}: {title} can't paint {extent}, only multiples of {multiple}. The nearest is {nearest}. "
            "Resize the picture, or change width and height, to that."
        )


def as_rgb(images: torch.Tensor) -> torch.Tensor:
    """[B, H, W, C] as [B, H, W, 3] float32 in 0..1: alpha is dropped and grey repeated, as the host's VAEEncode does it.

    Raises:
        RelayError: as :func:`as_unclamped_rgb`.
    """
    return as_unclamped_rgb(images).clamp(0, 1)


def as_unclamped_rgb(images: torch.Tensor) -> torch.Tensor:
    """:func:`as_rgb` with its values as they are: control pictures mark holes by -1.

    Raises:
        RelayError: another rank or channel count, an empty batch, a picture with no pixels, a value that is not a number.
    """
    if images.ndim != 4 or images.shape[-1] not in KIND_OF_CHANNELS:
        raise RelayError(
            f"image: expected [batch, height, width, channels] with 1 (grey), 3 (RGB) or 4 (RGBA) channels, got shape {list(images.shape)}."
        )
    if images.shape[0] == 0:
        raise RelayError("image: the batch is empty. Connect at least one picture.")
    if min(images.shape[1:3]) < 1:
        raise RelayError(f"image: {extent_of(images)} has no pixels.")
    images = images.expand(-1, -1, -1, 3) if images.shape[-1] == 1 else images[..., :3]
    images = images.float()
    if not images.isfinite().all():
        raise RelayError("image: some of its values are NaN or infinite. The node that made it went wrong.")
    return images


def to_pil(image: torch.Tensor) -> Image:
    """One [H, W, 3] picture in 8 bits, rounded to the nearest (exact for a picture that was loaded from a file)."""
    import numpy as np
    from PIL import Image as pil

    return pil.fromarray(np.rint(image.cpu().numpy() * 255.0).astype(np.uint8), mode=None)


def to_pixels(images: torch.Tensor, factor: int) -> torch.Tensor:
    """IMAGE -> [B, 3, H, W] in -1..1 float32, by diffusers' own image processor.

    A size that ``factor`` does not divide takes the processor's PIL route, as in a script: lanczos, down to the next
    multiple.

    Raises:
        RelayError: as :func:`as_rgb`; a picture smaller than one latent pixel.
    """
    from diffusers.image_processor import VaeImageProcessor

    images = as_rgb(images)
    extent = extent_of(images)
    if min(extent.width, extent.height) < factor:
        raise RelayError(f"image: {extent} is smaller than one latent pixel ({factor}x{factor}). Use a larger picture.")
    processor = VaeImageProcessor(vae_scale_factor=factor)
    if extent == extent.floored(factor):
        return processor.preprocess(images.movedim(-1, 1))
    return processor.preprocess([to_pil(image) for image in images])


def to_host_images(pictures: torch.Tensor) -> torch.Tensor:
    """The decoder's [B, 3, H, W] in -1..1 as IMAGE, as the pipelines' own ``output_type="pt"``."""
    from diffusers.image_processor import VaeImageProcessor

    pixels = VaeImageProcessor().postprocess(pictures, output_type="pt")
    return pixels.movedim(1, -1).float()


def grid(images: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """[rows * columns, H, W, C] pictures as one [1, rows * H, columns * W, C], row by row. 0 is "as many as it takes".

    Raises:
        RelayError: the cells are not as many as the pictures; no pictures at all.
    """
    if images.ndim != 4 or min(images.shape[1:]) == 0:
        raise RelayError(f"images: expected [batch, height, width, channels], got shape {list(images.shape)}.")
    count = images.shape[0]
    if rows < 0 or columns < 0 or count == 0:
        raise RelayError(f"rows, columns: {rows} x {columns} cells for {count} pictures can't be laid out.")
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
            f"rows, columns: {rows} x {columns} cells can't hold exactly {count} pictures. These do (rows x columns): {fits}."
        )
    height, width, channels = images.shape[1:]
    cells = images.reshape(rows, columns, height, width, channels)
    return cells.permute(0, 2, 1, 3, 4).reshape(1, rows * height, columns * width, channels)
