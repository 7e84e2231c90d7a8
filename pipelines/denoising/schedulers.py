"""A run's own scheduler object, from the model's config and the user's choice."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..model.components import PipelineComponents, SchedulerChoice

if TYPE_CHECKING:
    import torch

SIGMA_FLAGS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
TORCHSDE_SEEDS = 2**63
TIMESTEP_SPACINGS = ("leading", "linspace", "trailing")


def build_scheduler(components: PipelineComponents, generators: Sequence[torch.Generator] = ()) -> Any:
    """A fresh scheduler: nothing of one run's state reaches another.

    Args:
        components: the model and the choice.
        generators: the run's, one an image. A scheduler that takes no generator for the noise that it adds, and would
            draw it from nowhere (DPMSolverSDEScheduler), is given their seeds.

    Raises:
        RelayError: the choice names a class that the family can't run, or an option that the class does not have.
    """
    scheduler = _from_choice(components, components.scheduler)
    if hasattr(scheduler, "noise_sampler_seed") and scheduler.noise_sampler_seed is None and generators:
        scheduler.noise_sampler_seed = [generator.initial_seed() % TORCHSDE_SEEDS for generator in generators]
    return scheduler


def with_scheduler(components: PipelineComponents, choice: SchedulerChoice) -> PipelineComponents:
    """A view of the model that runs with ``choice``, tried at once so that a bad choice fails here and not later."""
    _from_choice(components, choice)
    return components.with_changes(scheduler=choice)


def _from_choice(components: PipelineComponents, choice: SchedulerChoice) -> Any:
    own = components["scheduler"]
    cls = type(own) if choice.class_name is None else _class_named(choice.class_name, components)
    options: dict[str, Any] = {}
    if cls is not type(own) and own.config.get("prediction_type") == "original_sample":
        options["prediction_type"] = "sample"  # an older word for it, which Euler alone still knows
    takes = inspect.signature(cls.__init__).parameters
    if choice.sigmas is not None:
        flag = SIGMA_FLAGS.get(choice.sigmas)
        if flag is None or flag not in takes:
            able = [name for name, its_flag in SIGMA_FLAGS.items() if its_flag in takes]
            raise RelayError(
                f"sigmas: {cls.__name__} can't use {choice.sigmas!r}. It can use: {', '.join(['default', *able])}."
            )
        options |= {its_flag: its_flag == flag for its_flag in SIGMA_FLAGS.values() if its_flag in takes}
    if choice.timestep_spacing is not None:
        if choice.timestep_spacing not in TIMESTEP_SPACINGS or "timestep_spacing" not in takes:
            able = list(TIMESTEP_SPACINGS if "timestep_spacing" in takes else ())
            raise RelayError(
                f"timestep_spacing: {cls.__name__} can't use {choice.timestep_spacing!r}. It can use: {', '.join(['default', *able])}."
            )
        options["timestep_spacing"] = choice.timestep_spacing
    return cls.from_config(own.config, **options)


def _class_named(name: str, components: PipelineComponents) -> Any:
    import diffusers

    family = components.family
    allowed = {type(components["scheduler"]).__name__, *family.schedulers}
    if name not in allowed:
        raise RelayError(f"scheduler: {family.title} can't run {name!r}. It can run: {', '.join(sorted(allowed))}.")
    return getattr(diffusers, name)
