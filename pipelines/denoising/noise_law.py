"""The noise law of a scheduler class: how it adds noise and interprets its model. A model only works with schedulers of its own law."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..base.numbers import all_steps, begun_steps, whole_steps
from ..model.component_classes import FLOW_MATCH_SCHEDULERS, KARRAS_DIFFUSION_SCHEDULERS, MORE_DIFFUSION_SCHEDULERS
from ..model.family import ModelFamily
from ..model.family_table import FAMILIES
from ..model.laws import NoiseLaw

if TYPE_CHECKING:
    import torch

DIFFUSION_SCHEDULERS = (
    *KARRAS_DIFFUSION_SCHEDULERS,
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    *MORE_DIFFUSION_SCHEDULERS,
)
EDM_SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")

LAW_OF = {
    **dict.fromkeys(DIFFUSION_SCHEDULERS, NoiseLaw.DIFFUSION),
    **dict.fromkeys(EDM_SCHEDULERS, NoiseLaw.EDM),
    **dict.fromkeys(FLOW_MATCH_SCHEDULERS, NoiseLaw.FLOW),
    "FlowMatchLCMScheduler": NoiseLaw.FLOW,
    "UnCLIPScheduler": NoiseLaw.UNCLIP,
    "CMStochasticIterativeScheduler": NoiseLaw.CONSISTENCY,
    "VQDiffusionScheduler": NoiseLaw.VQ,
    "IPNDMScheduler": NoiseLaw.IPNDM,
}
"""Keys are the names of diffusers' classes. The pack runs no other classes."""

LAW_CONFIG: dict[NoiseLaw | None, dict[str, object]] = {
    NoiseLaw.DIFFUSION: {"rescale_betas_zero_snr": False, "trained_betas": None},
    NoiseLaw.FLOW: {
        **{"shift": 1.0, "flow_shift": 1.0, "use_dynamic_shifting": False},
        **{"shift_terminal": None, "invert_sigmas": False},
    },
}
"""Settings that belong to the law, each with the value at which a class without the setting gives the same schedule."""

USUAL_SCHEDULER = {
    NoiseLaw.DIFFUSION: "EulerDiscreteScheduler",
    NoiseLaw.FLOW: "FlowMatchEulerDiscreteScheduler",
}
"""The scheduler to suggest for a model whose own scheduler has another law than its family."""


def law_of(scheduler: Any) -> NoiseLaw | None:
    """The law of a scheduler object: that of its class, unless its config switches to flow matching. None if it is unknown."""
    config = scheduler.config
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return NoiseLaw.FLOW
    return LAW_OF.get(type(scheduler).__name__)


def schedulers_to_choose() -> tuple[str, ...]:
    """Every class that a model of any family can use, in the order of the families, so that new ones come last."""
    names: list[str] = []
    for family in FAMILIES:
        names += family.schedulers
        names += EDM_SCHEDULERS if NoiseLaw.EDM in family.also_noise else ()
    return tuple(dict.fromkeys(names))


def steps_at_strength(family: ModelFamily) -> Callable[[int, float], int]:
    """The function of ``(steps, strength)`` that gives how many steps the family's image-to-image runs.

    Source: ``get_timesteps`` of diffusers' StableDiffusionImg2ImgPipeline and StableDiffusion3Img2ImgPipeline
    """
    if family.keeps_steps:
        return all_steps
    return begun_steps if family.noise is NoiseLaw.FLOW else whole_steps


def with_noise(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """``clean`` latents with the noise that they have in a run before its model is called at ``timestep``.

    Args:
        scheduler: the run's own, at the current step. Its own method adds the noise: ``add_noise`` for diffusion, and
            ``scale_noise`` in the classes for flow matching.
        clean: [B, C, h, w] in model scale.
        noise: the run's own, of the same shape.
        timestep: [1], one of the run's.
    """
    if hasattr(scheduler, "scale_noise"):
        noisy: torch.Tensor = scheduler.scale_noise(clean, timestep, noise)
    else:
        noisy = scheduler.add_noise(clean, noise, timestep)
    return noisy


def part_of_noise_left(scheduler: Any, timestep: float, first: float) -> float:
    """Where a timestep stands in a run: 1 at its ``first`` timestep, 0 at the last one that the model was trained with.

    Diffusion and flow matching count timesteps down to 0. The timesteps of EDM are logarithms of the noise.

    Source: https://huggingface.co/papers/2206.00364, table 1, c_noise
    """
    least = 0.25 * math.log(scheduler.config.sigma_min) if law_of(scheduler) is NoiseLaw.EDM else 0.0
    return (timestep - least) / (first - least) if first > least else 1.0
