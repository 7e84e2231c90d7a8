"""The picture behind a URL, as the host's IMAGE and MASK. The server's word on what it sends is not taken: the bytes tell."""

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
"""Pillow can read more, some of it with the help of other programs."""
MOST_PIXELS = 1 << 26
"""8192x8192: 800 MB as IMAGE."""
WHOLE = {"I;16": 65535.0, "I;16L": 65535.0, "I;16B": 65535.0, "I;16N": 65535.0, "I": 65535.0}
"""White in Pillow's modes for grey of more than 8 bits; its own conversion would cut them off at 255."""


@dataclass(frozen=True)
class LoadedImage:
    image: torch.Tensor
    """[1, H, W, 3] float32 0..1."""
    mask: torch.Tensor
    """[1, H, W] float32, 1 - alpha; zeros where the picture has no alpha."""


def load_image(
    url: str,
    monitor: Monitor,
    *,
    limits: Limits = LIMITS,
    network: Internet | None = None,
) -> LoadedImage:
    """Downloads and reads a picture: its first frame, turned as its EXIF orientation says.

    Raises:
        RelayError: as :func:`.url_fetch.fetch` and :func:`decode_image`.
    """
    content = fetch(url, monitor, limits=limits, network=network)
    monitor.check()
    return decode_image(content)


def decode_image(content: bytes) -> LoadedImage:
    """The picture in a file's bytes.

    Raises:
        RelayError: not a picture in one of :data:`FORMATS`, broken, or of more than :data:`MOST_PIXELS` pixels.
    """
    import torch
    from PIL import Image as pil
    from PIL import ImageOps, UnidentifiedImageError

    pil.init()
    formats = [name for name in FORMATS if name in pil.OPEN]
    try:
        with pil.open(BytesIO(content), formats=formats) as opened:
            _check_size(Extent(*opened.size))  # known from the header: nothing is unpacked yet
            picture = ImageOps.exif_transpose(opened)
            pixels, alpha = _pixels(picture), _alpha(picture)
    except UnidentifiedImageError:
        raise RelayError(
            f"url: what it gives is not a picture ({len(content)} bytes). Give the address of the picture itself, not of a page "
            f"that shows it, as one of: {', '.join(formats)}."
        ) from None
    except pil.DecompressionBombError:
        raise RelayError(f"url: the picture has more than {MOST_PIXELS} pixels. Use a smaller one.") from None
    except RelayError:
        raise
    except Exception as error:  # Pillow's readers raise what they like on broken files
        raise RelayError(f"url: the picture is broken and can't be read ({type(error).__name__}).") from error
    return LoadedImage(torch.from_numpy(pixels)[None], torch.from_numpy(1.0 - alpha)[None])


def _check_size(extent: Extent) -> None:
    if extent.width * extent.height > MOST_PIXELS:
        raise RelayError(
            f"url: the picture is {extent}, and may have {MOST_PIXELS} pixels (8192x8192). Use a smaller one."
        )


def _pixels(picture: Image) -> np.ndarray:
    """[H, W, 3] float32 0..1."""
    import numpy as np

    if picture.mode in WHOLE:
        grey = np.asarray(picture).astype(np.float32) / WHOLE[picture.mode]
        return np.repeat(grey.clip(0, 1)[..., None], 3, axis=-1)
    if picture.mode == "F":
        raise RelayError(
            "url: the picture's values are decimal numbers, and what is white is not known. Save it with 8 or 16 bits."
        )
    return np.asarray(picture.convert("RGB")).astype(np.float32) / 255.0


def _alpha(picture: Image) -> np.ndarray:
    """[H, W] float32 0..1."""
    import numpy as np

    if "A" in picture.getbands() or (picture.mode in ("P", "L", "RGB") and "transparency" in picture.info):
        return np.asarray(picture.convert("RGBA").getchannel("A")).astype(np.float32) / 255.0
    return np.ones((picture.height, picture.width), np.float32)
