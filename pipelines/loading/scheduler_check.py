"""Whether a scheduler that a model brings can run at all: tried on a latent of a few numbers, when it is loaded and not in the middle of a run."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from ..base.errors import RelayError, in_a_line
from ..base.library_log import without_rounding_warnings
from ..denoising.noise_law import law_of
from ..model.laws import NoiseLaw

COUNTS = (2, 3, 4, 5, 8, 12, 20, 50, 1)
"""Steps that are tried in turn, until one count runs: some schedulers need several, and some run at most a few."""
STEPS = 3
"""Steps of each that are made."""
LEVELS = 4
"""Steps at which a schedule's noise levels are looked at: what is wrong with them does not show at fewer."""
SHAPE = (1, 4, 8, 8)


def check_scheduler(scheduler: Any, where: str) -> None:
    """
    Raises:
        RelayError: its betas or its noise levels are no noise schedule, or no number of steps runs. ``where``: its file, for the message.
    """
    import torch

    _check_betas(scheduler, where)
    failed: Exception | None = None
    for count in COUNTS:
        try:
            # some draw a seed of their own from the world's generator, which is left as it was
            with without_rounding_warnings(), torch.random.fork_rng(devices=[]):
                _run(copy.deepcopy(scheduler), count)
        except Exception as error:  # any: what a library does with values that it does not know
            failed = failed or error
        else:
            break
    else:
        raise _cannot_run(scheduler, where, failed) from failed
    if law_of(scheduler) is NoiseLaw.FLOW:
        _check_levels(copy.deepcopy(scheduler), count, where)


def _cannot_run(scheduler: Any, where: str, failed: Exception | None) -> RelayError:
    return RelayError(
        f"{where}: {type(scheduler).__name__} can't run with what the file says ({in_a_line(failed)}). Take the file from a complete copy of the model."
    )


def _check_betas(scheduler: Any, where: str) -> None:
    kept = getattr(scheduler, "alphas_cumprod", None)
    if kept is None:
        return  # one of EDM, which has sigmas alone
    count = scheduler.config.num_train_timesteps
    before_the_last = kept[:-1]  # at the last, a model with zero signal has none left
    if kept.ndim != 1 or len(kept) != count or not bool(((before_the_last > 0) & (before_the_last < 1)).all()):
        raise RelayError(
            f"{where}: its betas are no noise schedule: {count} are needed, each above 0 and below 1, and so small that some of the picture is left "
            "up to the last. Take the file from a complete copy of the model."
        )


def _check_levels(scheduler: Any, count: int, where: str) -> None:
    """Of flow matching, which has no betas: the levels of noise are shares, and fall. ``count``: steps that run."""
    _set_steps(scheduler, max(count, LEVELS))
    levels = 1 - scheduler.sigmas if scheduler.config.get("invert_sigmas") else scheduler.sigmas
    falls = bool((levels.diff() <= 0).all()) and float(levels[0]) > float(levels[-2])
    if not (falls and float(levels[0]) <= 1 and float(levels[-1]) >= 0):
        raise RelayError(
            f"{where}: its settings are no noise schedule of flow matching, whose noise levels fall from 1 to 0. "
            "Take the file from a complete copy of the model."
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
        given = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        output = torch.cat([given, given], dim=1) * 0.1 if learned else given * 0.1
        try:
            sample = scheduler.step(output, timestep, sample, **settings, return_dict=False)[0]
        except RuntimeError:
            if not learned:
                raise
            # one that passes over what is learned of the variance is given the mean alone, as its pipelines do
            sample = scheduler.step(given * 0.1, timestep, sample, **settings, return_dict=False)[0]
