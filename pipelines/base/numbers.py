"""Numbers of a run that are NaN or infinite."""

from __future__ import annotations

import math

from .errors import RelayError


def check_numbers(settings: object) -> None:
    """
    Args:
        settings: a run's settings, whose fields have the names of a node's inputs.

    Raises:
        RelayError: a float of them is NaN or infinite: no comparison would find it, and it would become a black picture.
    """
    for name, value in vars(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RelayError(f"{name}: {value} can't be used. Enter a finite number.")
