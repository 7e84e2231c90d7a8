"""Checks an image processor by trying it on a small image when it is loaded."""

from __future__ import annotations

from typing import Any

from ..base.errors import RelayError, in_a_line

SIZE = (50, 70)


def check_processor(processor: Any, where: str) -> None:
    """
    Raises:
        RelayError: it can't turn an image into numbers. ``where``: its file, for the message.
    """
    try:
        tensor = pixels(processor)
        if tensor.ndim == 4 and tensor.shape[:2] == (1, 3) and bool(tensor.isfinite().all()):
            return
        reason = f"the result has NaN or infinite values, or the wrong shape {list(tensor.shape)}"
    except Exception as error:  # a library may raise anything for values that it does not expect
        reason = in_a_line(error)
    raise RelayError(
        f"{where}: can't prepare an image with these settings ({reason}). Use the file from a complete copy of the model."
    )


def pixels(processor: Any) -> Any:
    """The processor's result for a small grey image, passed as the pipelines do: [1, 3, height, width]."""
    from PIL import Image

    return processor([Image.new("RGB", SIZE, "grey")], return_tensors="pt").pixel_values
