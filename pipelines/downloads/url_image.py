"""Downloads an image as the host's IMAGE and MASK. The file's bytes tell its format, not the server."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..base.images import Extent
from ..base.monitor import Monitor
from .url_address import Internet
from .url_fetch import LIMITS, Limits, fetch

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Pillow can read more formats, some of them with other programs."""
MOST_PIXELS = 1 << 26
"""8192x8192, which takes 800 MB as IMAGE."""
WHITE = {"I;16": 65535.0, "I;16L": 65535.0, "I;16B": 65535.0, "I;16N": 65535.0, "I": 65535.0}
"""Value of white in Pillow's grey modes with more than 8 bits. Pillow's own conversion would clip values at 255."""


@dataclass(frozen=True)
class LoadedImage:
    image: torch.Tensor
    """[1, H, W, 3] float32 0..1."""
    mask: torch.Tensor
    """[1, H, W] float32, 1 - alpha; zeros if the image has no alpha."""


def load_image(
    url: str,
    monitor: Monitor,
    *,
    limits: Limits = LIMITS,
    network: Internet | None = None,
) -> LoadedImage:
    """Downloads and decodes the first frame of an image, rotated by its EXIF orientation.

    Raises:
        RelayError: :func:`.url_fetch.fetch` or :func:`decode_image` raises it.
    """
    content = fetch(url, monitor, limits=limits, network=network)
    monitor.check()
    return decode_image(content)


def decode_image(content: bytes) -> LoadedImage:
    """Decodes the bytes of an image file.

    Raises:
        RelayError: they are not an image in one of :data:`FORMATS`, are damaged, or have more than :data:`MOST_PIXELS` pixels.
    """
    import torch
    from PIL import Image as pil
    from PIL import ImageOps, UnidentifiedImageError

    pil.init()
    formats = [name for name in FORMATS if name in pil.OPEN]
    try:
        with pil.open(BytesIO(content), formats=formats) as opened:
            _check_size(Extent(*opened.size))  # from the header, before anything is decompressed
            image = ImageOps.exif_transpose(opened)
            pixels, alpha = _pixels(image), _alpha(image)
    except UnidentifiedImageError:
        raise RelayError(
            f"url: this is not an image ({len(content)} bytes). Enter the address of the image itself, not of a page that shows it. "
            f"Possible formats: {', '.join(formats)}."
        ) from None
    except pil.DecompressionBombError:
        raise RelayError(f"url: the image has more than {MOST_PIXELS} pixels. Use a smaller one.") from None
    except RelayError:
        raise
    except Exception as error:  # Pillow may raise anything for damaged files
        raise RelayError(
            f"url: the image is damaged and can't be read ({type(error).__name__}). Use another file."
        ) from error
    return LoadedImage(torch.from_numpy(pixels)[None], torch.from_numpy(1.0 - alpha)[None])


def _check_size(extent: Extent) -> None:
    if extent.width * extent.height > MOST_PIXELS:
        raise RelayError(
            f"url: the image is {extent}, but may have at most {MOST_PIXELS} pixels (8192x8192). Use a smaller one."
        )


def _pixels(image: Image) -> np.ndarray:
    """[H, W, 3] float32 0..1."""
    import numpy as np

    if image.mode in WHITE:
        grey = np.asarray(image).astype(np.float32) / WHITE[image.mode]
        return np.repeat(grey.clip(0, 1)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise RelayError(
            "url: the image has floating-point values, and the value of white is unknown. Save it with 8 or 16 bits."
        )
    return np.asarray(image.convert("RGB")).astype(np.float32) / 255.0


def _alpha(image: Image) -> np.ndarray:
    """[H, W] float32 0..1."""
    import numpy as np

    if "A" in image.getbands() or (image.mode in ("P", "L", "RGB") and "transparency" in image.info):
        return np.asarray(image.convert("RGBA").getchannel("A")).astype(np.float32) / 255.0
    return np.ones((image.height, image.width), np.float32)
