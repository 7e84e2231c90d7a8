"""Builds a run's own scheduler from the model's config and the user's choice."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.library_log import without_foreign_attributes
from ..model.component_classes import FLOW_SOLVERS
from ..model.components import PipelineComponents, SchedulerChoice
from ..model.family import ModelFamily
from ..model.laws import NoiseLaw
from .noise_law import EDM_SCHEDULERS, LAW_CONFIG, USUAL_SCHEDULER, law_of
from .scheduler_workarounds import corrected

if TYPE_CHECKING:
    import torch

MOST_SHIFT = 100.0
SHIFTS = frozenset({"shift", "flow_shift", "use_dynamic_shifting"})
"""Settings that a chosen shift replaces."""
SIGMA_FLAGS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
TORCHSDE_SEEDS = 2**63
TIMESTEP_SPACINGS = ("leading", "linspace", "trailing")
PREDICTION_TYPES = ("epsilon", "v_prediction")
ALGORITHM_TYPES = ("dpmsolver++", "sde-dpmsolver++")
LATENT_DEFAULTS = {"clip_sample": False}
"""Settings that latent models need. Their configs usually contain them, but some schedulers' configs don't."""


def build_scheduler(components: PipelineComponents, generators: Sequence[torch.Generator] = ()) -> Any:
    """A new scheduler, so that no state passes from one run to another.

    Args:
        components: the model and the choice.
        generators: the run's, one per image. A scheduler that takes no generator for the noise that it adds
            (DPMSolverSDEScheduler) gets their seeds, because its noise would be unseeded otherwise. A scheduler that takes
            generators, but gets none from its pipelines (flow matching with ``stochastic_sampling``), gets them here.

    Raises:
        RelayError: the family can't run the chosen class, or the class does not have a chosen option.
    """
    scheduler = _from_choice(components, components.scheduler)
    if hasattr(scheduler, "noise_sampler_seed") and scheduler.noise_sampler_seed is None and generators:
        scheduler.noise_sampler_seed = [generator.initial_seed() % TORCHSDE_SEEDS for generator in generators]
    if scheduler.config.get("stochastic_sampling") and generators:
        scheduler.step = partial(scheduler.step, generator=list(generators))
    return scheduler


def with_scheduler(components: PipelineComponents, choice: SchedulerChoice) -> PipelineComponents:
    """A view of the model that runs with ``choice``. A scheduler is built at once, so that a bad choice fails here and not later."""
    _from_choice(components, choice)
    return components.with_changes(scheduler=choice)


def check_schedule(components: PipelineComponents, steps: int, *, in_part: bool = False, strength: float = 1.0) -> None:
    """Builds the run's schedule before anything is encoded, to find errors early.

    Args:
        components: the model and its scheduler.
        steps: the user's setting.
        in_part: whether the run begins at a denoising_start or stops at a denoising_end.
        strength: of the run. It shortens the schedule of families whose runs keep all their steps.

    Raises:
        RelayError: the model's scheduler has another noise law than the family, or can't make a schedule with this many steps.
    """
    scheduler = build_scheduler(components)
    name = type(scheduler).__name__
    offset = components.family.steps_offset
    if offset is not None and "steps_offset" in scheduler.config:
        scheduler.register_to_config(steps_offset=offset)
    if in_part and law_of(scheduler) is NoiseLaw.EDM:
        raise RelayError(
            f"denoising_start, denoising_end: {components.source} is an EDM model, which can't run only a part of its schedule. "
            "Set denoising_start to 0 and denoising_end to 1."
        )
    shortened = {"strength": strength} if components.family.keeps_steps and 0 < strength <= 1 else {}
    at = f" at strength {strength:g}" if shortened and strength < 1 else ""
    if _runs(scheduler, steps, **shortened):
        return
    most, too_many = 0, steps
    while too_many - most > 1:  # these classes have a largest number of steps: find it by bisection
        middle = (most + too_many) // 2
        most, too_many = (middle, too_many) if _runs(scheduler, middle, **shortened) else (most, middle)
    if most == 0 and _runs(scheduler, steps + 1, **shortened):
        raise RelayError(
            f"steps: {name} can't run {steps} steps with {components.source}. Set steps to at least {steps + 1}."
        )
    if most == 0:
        raise RelayError(
            f"steps: {name} can't run {steps} steps with {components.source}. Choose another scheduler in Set Scheduler."
        )
    raise RelayError(
        f"steps: {name} runs at most {most} steps with {components.source}{at}, but steps is {steps}. Set steps to {most} or fewer."
    )


def _runs(scheduler: Any, steps: int, **arguments: Any) -> bool:
    import numpy as np

    # The pipelines compute mu from the picture's size. It shifts the steps but doesn't remove any.
    if scheduler.config.get("use_dynamic_shifting"):
        arguments["mu"] = 1.0
    try:
        with np.errstate(all="ignore"):
            scheduler.set_timesteps(steps, **arguments)
    except (ValueError, IndexError, ZeroDivisionError, AssertionError):
        return False
    timesteps = scheduler.timesteps
    if len(timesteps) == 0 or not bool(timesteps.isfinite().all()):
        return False
    # An offset may point past the end of the noise table of these classes.
    return hasattr(scheduler, "sigmas") or int(timesteps.max()) < scheduler.config.num_train_timesteps


def _from_choice(components: PipelineComponents, choice: SchedulerChoice) -> Any:
    own = components["scheduler"]
    name = type(own).__name__ if choice.class_name is None else choice.class_name
    cls = corrected(_class_named(name, components))
    options = _carried_over(cls, components, choice) | _chosen(cls, choice, components)
    with without_foreign_attributes():
        scheduler = cls.from_config(own.config, **options)
    if cls.__name__ == "DPMSolverSinglestepScheduler" and scheduler.config.final_sigmas_type == "zero":
        # Its defaults exclude each other. It would make the same change itself, with a warning.
        scheduler.register_to_config(lower_order_final=True)
    return scheduler


def _chosen(cls: Any, choice: SchedulerChoice, components: PipelineComponents) -> dict[str, Any]:
    """The arguments of ``cls`` for the options in ``choice``.

    Raises:
        RelayError: ``cls`` does not have an option.
    """
    takes = inspect.signature(cls.__init__).parameters
    options = dict[str, Any]()
    solves_flow = _solves_flow(cls, components)  # then it has one way to space its levels
    if choice.sigmas is not None:
        flag = SIGMA_FLAGS.get(choice.sigmas)
        if flag is None or flag not in takes or solves_flow:
            able = [name for name, its_flag in SIGMA_FLAGS.items() if its_flag in takes and not solves_flow]
            raise _not_among("sigmas", choice.sigmas, cls, able)
        options |= {its_flag: its_flag == flag for its_flag in SIGMA_FLAGS.values() if its_flag in takes}
    has_algorithms = "algorithm_type" in takes and str(takes["algorithm_type"].default).startswith("dpmsolver")
    # the pipelines of flow matching models give a scheduler no generator for noise
    algorithms = ALGORITHM_TYPES[:1] if solves_flow else ALGORITHM_TYPES
    has_spacings = "timestep_spacing" in takes and not solves_flow
    predicts = "prediction_type" in takes and components.family.noise is NoiseLaw.DIFFUSION
    for name, value, values in (
        ("timestep_spacing", choice.timestep_spacing, TIMESTEP_SPACINGS if has_spacings else ()),
        ("prediction_type", choice.prediction_type, PREDICTION_TYPES if predicts else ()),
        ("algorithm_type", choice.algorithm_type, algorithms if has_algorithms else ()),
    ):
        if value is not None and value not in values:
            raise _not_among(name, value, cls, values)
        options |= {} if value is None else {name: value}
    for name, is_on in (
        ("rescale_betas_zero_snr", choice.rescale_betas_zero_snr),
        ("euler_at_final", choice.euler_at_final),
    ):
        if is_on and name not in takes:
            having = [one for one in _offered(components) if name in _parameters(one)]
            raise RelayError(
                f"{name}: {cls.__name__} does not have it. Switch it off"
                + (f", or choose one of: {', '.join(having)}." if having else ".")
            )
        options |= {name: True} if is_on else {}
    if choice.shift is not None:
        options |= _shifted(choice.shift, cls, components)
    return options


def _solves_flow(cls: Any, components: PipelineComponents) -> bool:
    return components.family.noise is NoiseLaw.FLOW and cls.__name__ in FLOW_SOLVERS


def _shifted(shift: float, cls: Any, components: PipelineComponents) -> dict[str, Any]:
    if not 0 < shift <= MOST_SHIFT:
        raise RelayError(f"shift: {shift:g} is not between 0 (the model's own) and {MOST_SHIFT:g}.")
    if components.family.noise is not NoiseLaw.FLOW:
        raise RelayError(
            f"shift: only flow matching models have one, and {components.source} ({components.family.title}) is none. Set shift to 0."
        )
    takes = inspect.signature(cls.__init__).parameters
    dynamic = {"use_dynamic_shifting": False} if "use_dynamic_shifting" in takes else {}
    return {"flow_shift" if _solves_flow(cls, components) else "shift": shift, **dynamic}


def _not_among(name: str, value: str, cls: Any, able: Sequence[str]) -> RelayError:
    return RelayError(f"{name}: {cls.__name__} can't use {value!r}. It can use: {', '.join(['default', *able])}.")


def _carried_over(cls: Any, components: PipelineComponents, choice: SchedulerChoice) -> dict[str, Any]:
    """The options that a scheduler of ``cls`` needs besides the config of the model's own one, to run the model as it was trained.

    Raises:
        RelayError: ``cls`` can't take a setting of the model's own scheduler that belongs to its noise law.
    """
    own = components["scheduler"]
    if cls.__name__ == type(own).__name__:
        return {}
    family, options = components.family, dict[str, Any]()
    if own.config.get("prediction_type") == "original_sample":
        options["prediction_type"] = "sample"  # the older name, which only Euler still accepts
    takes = inspect.signature(cls.__init__).parameters
    replaced = SHIFTS if choice.shift is not None else frozenset[str]()
    if _solves_flow(cls, components):
        replaced |= {"shift"}
        options |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        options |= {"flow_shift": own.config.get("shift", 1.0), **dict.fromkeys(SIGMA_FLAGS.values(), False)}
    for setting, without in LAW_CONFIG.get(law_of(own), {}).items():
        if setting in replaced:
            continue
        if setting not in takes and own.config.get(setting, without) not in (without, None):
            able = [name for name in _offered(components) if setting in _parameters(name)]
            raise RelayError(
                f"scheduler: {components.source} was trained with {setting}, which {cls.__name__} does not support. "
                f"Schedulers that support it: {', '.join(able)}."
            )
    # diffusers' defaults for these are meant for pixel models
    options |= {key: value for key, value in LATENT_DEFAULTS.items() if key in takes and key not in own.config}
    if _can_be_replaced(components):
        known = dict(family.known_schedule)
        if family.noise is NoiseLaw.DIFFUSION:
            known["use_flow_sigmas"] = False
            if own.config.get("prediction_type") not in ("epsilon", "v_prediction", "sample"):
                known["prediction_type"] = "epsilon"
        options |= {key: value for key, value in known.items() if key in takes}
    return options


def _class_named(name: str, components: PipelineComponents) -> Any:
    """diffusers' class with this name, if it has the noise law of the model.

    Raises:
        RelayError: it has another law, or the family's pipelines do not run it.
    """
    import diffusers

    family, own = components.family, components["scheduler"]
    own_name, own_law = type(own).__name__, law_of(own)
    if own_law not in _laws_of(family) and (name == own_name or not _can_be_replaced(components)):
        raise RelayError(_of_another_law(components))
    if name == own_name:
        return type(own)
    allowed = _offered(components)
    is_edm = _is_edm(components)
    if name in EDM_SCHEDULERS or is_edm:
        if name not in allowed:
            reason = "can't handle its noise" if is_edm else "works only with EDM models"
            raise RelayError(
                f"scheduler: {components.source} {'is' if is_edm else 'is not'} an EDM model, and {name} {reason}. "
                f"It can run: {', '.join(sorted(allowed))}."
            )
    elif name not in allowed:
        raise RelayError(f"scheduler: {family.title} can't run {name!r}. It can run: {', '.join(sorted(allowed))}.")
    return getattr(diffusers, name)


def _of_another_law(components: PipelineComponents) -> str:
    own = components["scheduler"]
    law = law_of(own)
    advice = ""
    if _can_be_replaced(components):
        usual = USUAL_SCHEDULER[components.family.noise]
        advice = (
            f" If the model was trained like other {components.family.title} models, choose {usual} in Set Scheduler."
        )
    return (
        f"model: {components.source}'s own scheduler, {type(own).__name__}{f' ({law.value})' if law else ''}, can't run "
        f"{components.family.title} models.{advice}"
    )


def _offered(components: PipelineComponents) -> tuple[str, ...]:
    """The classes that the model can run with."""
    if _is_edm(components):
        return EDM_SCHEDULERS
    own, others = components["scheduler"], components.family.schedulers
    name = type(own).__name__
    return others if name in others or law_of(own) is not components.family.noise else (name, *others)


def _parameters(name: str) -> Any:
    import diffusers

    return inspect.signature(getattr(diffusers, name).__init__).parameters


def _is_edm(components: PipelineComponents) -> bool:
    return law_of(components["scheduler"]) is NoiseLaw.EDM and NoiseLaw.EDM in _laws_of(components.family)


def _laws_of(family: ModelFamily) -> frozenset[NoiseLaw]:
    return family.also_noise | {family.noise}


def _can_be_replaced(components: PipelineComponents) -> bool:
    """Whether a folder with a scheduler of another law can still be run, because the schedule of the family's models is known."""
    family = components.family
    return bool(family.known_schedule) and law_of(components["scheduler"]) not in _laws_of(family)
