"""Numbers of a run that can't be: NaN, infinite, or such that no step is left."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import is_dataclass

from .errors import RelayError

MOST_STEPS = 1000
"""What the nodes' inputs take."""


def check_numbers(settings: object) -> None:
    """
    Args:
        settings: a run's settings, whose fields have the names of a node's inputs, or hold such settings.

    Raises:
        RelayError: a float of them is NaN or infinite: no comparison would find it, and it would become a black picture.
    """
    for name, value in vars(settings).items():
        if is_dataclass(value):
            check_numbers(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise RelayError(f"{name}: {value} can't be used. Enter a finite number.")


def whole_steps(steps: int, strength: float) -> int:
    """How many of ``steps`` are run at ``strength``, where a part of a step is left out."""
    return int(steps * strength)


def begun_steps(steps: int, strength: float) -> int:
    """How many of ``steps`` are run at ``strength``, where a part of a step is run as a whole one."""
    return steps - int(max(steps - min(steps * strength, steps), 0))


def check_strength(strength: float, steps: int, run: Callable[[int, float], int] = whole_steps) -> None:
    """Refuses a strength of which no step is left: diffusers would give an empty latent.

    What the message advises runs, and is a number that the inputs hold: they take strength in hundredths.

    Args:
        strength: as asked.
        steps: of a full run, as asked.
        run: how the pipeline counts the steps that it runs: :func:`whole_steps` or :func:`begun_steps`.
    """
    if strength > 1:
        raise RelayError(
            f"strength: {strength:g} is above 1, at which all of the picture is painted anew. Use 1 or less."
        )
    if run(steps, strength) >= 1:
        return
    least = next(n for n in range(1, 101) if run(steps, n / 100) >= 1) / 100
    if strength <= 0:
        raise RelayError(
            f"strength: at {strength:g} nothing is repainted. Raise strength to at least {least:g}, or use the picture as it is."
        )
    enough = next((n for n in range(steps, MOST_STEPS + 1) if run(n, strength) >= 1), None)
    more = "with which one step is run" if enough is None else f"or steps to at least {enough}"
    raise RelayError(
        f"strength, steps: {steps} steps at strength {strength:g} leave no step to run. Raise strength to at least {least:g}, {more}."
    )
