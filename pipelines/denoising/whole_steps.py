"""Splits a schedule with two model calls per step (Heun, KDPM2, DPM-Solver SDE) between steps, never within a step.

diffusers may split such a schedule after a step's first call. The first model then stops within a step, and the second continues
from a noise level above that of the latent, or loses the second call's correction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError

if TYPE_CHECKING:
    import torch


def has_two_calls(scheduler: Any) -> bool:
    return bool(scheduler.order == 2)


def cutoff_of(scheduler: Any, at: float) -> int:
    """The training timestep for a ``denoising_start`` or ``denoising_end``, computed as in the pipelines."""
    trained = scheduler.config.num_train_timesteps
    return round(trained - at * trained)


def begun_whole(scheduler: Any, timesteps: torch.Tensor, start: float) -> torch.Tensor:
    """``timesteps`` from the first step below ``start``; diffusers begins one step earlier."""
    if len(timesteps) > 0 and float(timesteps[0]) >= cutoff_of(scheduler, start):
        timesteps = timesteps[2:]
        scheduler.set_begin_index(scheduler.begin_index + 2)
    return timesteps


def ended_whole(scheduler: Any, timesteps: torch.Tensor, end: float, steps: int) -> torch.Tensor:
    """``timesteps`` up to the end of the step that contains ``end``. They must begin with a step's first call.

    Raises:
        RelayError: no step is left.
    """
    calls = int((timesteps >= cutoff_of(scheduler, end)).sum())
    if calls == 0:
        raise RelayError(
            f"denoising_end, steps: none of the {steps} steps lies before {end:g}. Raise denoising_end or steps."
        )
    return timesteps[: calls + calls % 2]


def end_whole(scheduler: Any, end: float, steps: int) -> None:
    """Makes a run's own scheduler stop at ``denoising_end``, for a run that starts at the beginning of the schedule."""
    set_all = scheduler.set_timesteps

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        set_all(*args, **kwargs)
        scheduler.timesteps = ended_whole(scheduler, scheduler.timesteps, end, steps)

    scheduler.set_timesteps = set_timesteps
