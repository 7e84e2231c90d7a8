"""Checks a run's numbers: no NaN or infinity, and a strength that leaves at least one step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import is_dataclass

from .errors import RelayError

MOST_STEPS = 1000
"""The maximum of the nodes' steps inputs."""


def check_numbers(settings: object) -> None:
    """
    Args:
        settings: a run's settings. Their fields are named like the node's inputs, or are such settings themselves.

    Raises:
        RelayError: a float is NaN or infinite. Comparisons don't detect NaN, and the image would be black.
    """
    for name, value in vars(settings).items():
        if is_dataclass(value):
            check_numbers(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise RelayError(f"{name}: {value} can't be used. Enter a finite number.")


def whole_steps(steps: int, strength: float) -> int:
    """How many of ``steps`` are run at ``strength``, where a part of a step is left out."""
    return int(steps * strength)


def all_steps(steps: int, strength: float) -> int:
    """How many of ``steps`` are run at ``strength``, where the strength only shortens the schedule."""
    return steps if strength > 0 else 0


def begun_steps(steps: int, strength: float) -> int:
    """How many of ``steps`` are run at ``strength``, where a part of a step is run as a whole one."""
    return steps - int(max(steps - min(steps * strength, steps), 0))


def check_strength(strength: float, steps: int, run: Callable[[int, float], int] = whole_steps) -> None:
    """Checks that the strength leaves at least one step; diffusers would return an empty latent.

    The message suggests values that work and that can be entered: the strength inputs have two decimal places.

    Args:
        strength: as entered.
        steps: of a full run, as entered.
        run: how the pipeline counts the steps that it runs: :func:`whole_steps` or :func:`begun_steps`.

    Raises:
        RelayError: the strength is above 1, or leaves no step.
    """
    if strength > 1:
        raise RelayError(f"strength: {strength:g} is above 1, which already replaces the whole image. Use 1 or less.")
    if run(steps, strength) >= 1:
        return
    least = next(n for n in range(1, 101) if run(steps, n / 100) >= 1) / 100
    if strength <= 0:
        raise RelayError(
            f"strength: {strength:g} changes nothing. Raise strength to at least {least:g}, or use the image without this node."
        )
    enough = next((n for n in range(steps, MOST_STEPS + 1) if run(n, strength) >= 1), None)
    more = "which runs one step" if enough is None else f"or steps to at least {enough}"
    raise RelayError(
        f"strength, steps: {steps} steps at strength {strength:g} leave no step to run. Raise strength to at least {least:g}, {more}."
    )
