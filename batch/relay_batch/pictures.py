"""Decodes a picture whole before it is sent: ComfyUI's LoadImage takes a truncated file in silence and paints black."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence, UnidentifiedImageError

from .errors import BadPicture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Picture:
    """What a picture that was decoded whole is."""

    format: str
    width: int
    height: int


def checked_picture(file: Path) -> Picture:
    """Raises BadPicture if the file is missing, empty, truncated, damaged, too large, or no picture."""
    try:
        if file.stat().st_size == 0:
            raise BadPicture(f"The picture {file} is empty.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                picture.verify()  # checksums, and the end of the file
            with Image.open(file) as picture:
                found = Picture(picture.format or "", *picture.size)
                for frame in ImageSequence.Iterator(picture):
                    frame.load()
    except FileNotFoundError as error:
        raise BadPicture(f"There is no picture {file}.") from error
    except UnidentifiedImageError as error:
        raise BadPicture(f"{file} is no picture.") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadPicture(f"The picture {file} is damaged or truncated ({error}).") from error
    return found
