"""Whether what prepares a picture for an encoder can: tried on a small picture when it is loaded."""

from __future__ import annotations

from typing import Any

from ..base.errors import RelayError, in_a_line

SIZE = (50, 70)


def check_processor(processor: Any, where: str) -> None:
    """
    Raises:
        RelayError: it makes no numbers of a picture. ``where``: its file, for the message.
    """
    try:
        made = pixels(processor)
        if made.ndim == 4 and made.shape[:2] == (1, 3) and bool(made.isfinite().all()):
            return
        reason = f"it makes values that are no numbers, or of shape {list(made.shape)}"
    except Exception as error:  # any: what a library does with values that it does not know
        reason = in_a_line(error)
    raise RelayError(
        f"{where}: no picture can be prepared with what the file says ({reason}). Take the file from a complete copy of the model."
    )


def pixels(processor: Any) -> Any:
    """What it makes of a small grey picture, given as the pipelines give it: [1, 3, height, width]."""
    from PIL import Image

    return processor([Image.new("RGB", SIZE, "grey")], return_tensors="pt").pixel_values
