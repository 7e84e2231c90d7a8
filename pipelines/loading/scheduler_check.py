"""Checks that a model's scheduler can run, by trying it on a tiny latent when it is loaded."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from ..base.errors import RelayError, in_a_line
from ..base.library_log import without_rounding_warnings
from ..denoising.noise_law import law_of
from ..model.laws import NoiseLaw

COUNTS = (2, 3, 4, 5, 8, 12, 20, 50, 1)
"""Numbers of steps that are tried in turn until one works: some schedulers need several, some can only do a few."""
STEPS = 3
"""Steps that are run for each of :data:`COUNTS`."""
LEVELS = 4
"""Steps at which a schedule's noise levels are checked: fewer don't show what is wrong with them."""
SHAPE = (1, 4, 8, 8)


def check_scheduler(scheduler: Any, where: str) -> None:
    """
    Raises:
        RelayError: its betas or noise levels are not a noise schedule, or it can't run any number of steps. ``where``: its file, for the message.
    """
    import torch

    _check_betas(scheduler, where)
    failed: Exception | None = None
    for count in COUNTS:
        try:
            # some schedulers draw a seed from the global generator, whose state must not change
            with without_rounding_warnings(), torch.random.fork_rng(devices=[]):
                _run(copy.deepcopy(scheduler), count)
        except Exception as error:  # a library may raise anything for values that it does not expect
            failed = failed or error
        else:
            break
    else:
        raise _cannot_run(scheduler, where, failed) from failed
    if law_of(scheduler) is NoiseLaw.FLOW:
        _check_levels(copy.deepcopy(scheduler), count, where)


def _cannot_run(scheduler: Any, where: str, failed: Exception | None) -> RelayError:
    return RelayError(
        f"{where}: {type(scheduler).__name__} can't run with these settings ({in_a_line(failed)}). Use the file from a complete copy of the model."
    )


def _check_betas(scheduler: Any, where: str) -> None:
    kept = getattr(scheduler, "alphas_cumprod", None)
    if kept is None:
        return  # EDM schedulers only have sigmas
    count = scheduler.config.num_train_timesteps
    before_the_last = kept[:-1]  # with zero terminal SNR, the last value is 0
    if kept.ndim != 1 or len(kept) != count or not bool(((before_the_last > 0) & (before_the_last < 1)).all()):
        raise RelayError(
            f"{where}: its betas are not a noise schedule. It needs {count} betas, each above 0 and below 1, and small enough that some of the image "
            "remains up to the last step. Use the file from a complete copy of the model."
        )


def _check_levels(scheduler: Any, count: int, where: str) -> None:
    """Flow matching has no betas: its noise levels must lie between 0 and 1, and decrease. ``count``: steps that run."""
    _set_steps(scheduler, max(count, LEVELS))
    levels = 1 - scheduler.sigmas if scheduler.config.get("invert_sigmas") else scheduler.sigmas
    falls = bool((levels.diff() <= 0).all()) and float(levels[0]) > float(levels[-2])
    if not (falls and float(levels[0]) <= 1 and float(levels[-1]) >= 0):
        raise RelayError(
            f"{where}: its settings do not make a noise schedule for flow matching, whose noise levels fall from 1 to 0. "
            "Use the file from a complete copy of the model."
        )


def _set_steps(scheduler: Any, count: int) -> None:
    shift = {"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}  # of any size: they ask for one
    scheduler.set_timesteps(count, **shift)


def _run(scheduler: Any, count: int) -> None:
    import torch

    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    settings = {"generator": torch.Generator().manual_seed(0)} if takes_generator else {}
    _set_steps(scheduler, count)
    sample = torch.full(SHAPE, 0.5)
    learned = str(scheduler.config.get("variance_type")).startswith("learned")
    for timestep in scheduler.timesteps[:STEPS]:
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        output = torch.cat([scaled, scaled], dim=1) * 0.1 if learned else scaled * 0.1
        try:
            sample = scheduler.step(output, timestep, sample, **settings, return_dict=False)[0]
        except RuntimeError:
            if not learned:
                raise
            # a scheduler that ignores the learned variance gets only the mean, as in its pipelines
            sample = scheduler.step(scaled * 0.1, timestep, sample, **settings, return_dict=False)[0]
