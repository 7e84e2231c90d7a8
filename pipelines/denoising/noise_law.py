"""The law by which a scheduler class adds noise and reads its model: a model can only be run by one of its own law."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..base.numbers import begun_steps, whole_steps
from ..model.component_classes import FLOW_MATCH_SCHEDULERS
from ..model.family import ModelFamily
from ..model.family_table import FAMILIES
from ..model.laws import NoiseLaw

if TYPE_CHECKING:
    import torch

DIFFUSION_SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "SASolverScheduler",
    "LCMScheduler",
    "TCDScheduler",
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
"""By the name of diffusers' class. A class that is not here is of no law that the pack runs."""

LAW_CONFIG: dict[NoiseLaw | None, dict[str, object]] = {
    NoiseLaw.DIFFUSION: {"rescale_betas_zero_snr": False, "trained_betas": None},
    NoiseLaw.FLOW: {
        **{"shift": 1.0, "flow_shift": 1.0, "use_dynamic_shifting": False},
        **{"shift_terminal": None, "invert_sigmas": False},
    },
}
"""Settings that belong to the law, with the value at which a class that does not take them gives the same schedule."""

USUAL_SCHEDULER = {
    NoiseLaw.DIFFUSION: "EulerDiscreteScheduler",
    NoiseLaw.FLOW: "FlowMatchEulerDiscreteScheduler",
}
"""What to advise for a model whose own scheduler is of another law than its family."""


def law_of(scheduler: Any) -> NoiseLaw | None:
    """Of a scheduler object: its class, unless its config makes that one of flow matching. None: not known here."""
    config = scheduler.config
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return NoiseLaw.FLOW
    return LAW_OF.get(type(scheduler).__name__)


def schedulers_to_choose() -> tuple[str, ...]:
    """Every class that a model of some family can be set to; new families' come after the others'."""
    names: list[str] = []
    for family in FAMILIES:
        names += family.schedulers
        names += EDM_SCHEDULERS if NoiseLaw.EDM in family.also_noise else ()
    return tuple(dict.fromkeys(names))


def steps_at_strength(family: ModelFamily) -> Callable[[int, float], int]:
    """How the family's image-to-image counts the steps that it runs of ``(steps, strength)``.

    Source: ``get_timesteps`` of diffusers' StableDiffusionImg2ImgPipeline and StableDiffusion3Img2ImgPipeline
    """
    return begun_steps if family.noise is NoiseLaw.FLOW else whole_steps


def with_noise(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """``clean`` latents as a run has them before its model is called at ``timestep``.

    Args:
        scheduler: the run's own, where the run is now. Its own formula adds the noise: ``add_noise`` by diffusion, and
            ``scale_noise`` in the classes that were made for flow matching.
        clean: [B, C, h, w] in model scale.
        noise: of the same shape, the run's own.
        timestep: [1], one of the run's.
    """
    if hasattr(scheduler, "scale_noise"):
        noisy: torch.Tensor = scheduler.scale_noise(clean, timestep, noise)
    else:
        noisy = scheduler.add_noise(clean, noise, timestep)
    return noisy
