"""The law by which a scheduler class adds noise and reads its model: a model can only be run by one of its own law."""

from __future__ import annotations

from typing import Any

from ..model.laws import NoiseLaw

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
    "FlowMatchEulerDiscreteScheduler": NoiseLaw.FLOW,
    "FlowMatchHeunDiscreteScheduler": NoiseLaw.FLOW,
    "FlowMatchLCMScheduler": NoiseLaw.FLOW,
    "UnCLIPScheduler": NoiseLaw.UNCLIP,
    "CMStochasticIterativeScheduler": NoiseLaw.CONSISTENCY,
    "VQDiffusionScheduler": NoiseLaw.VQ,
    "IPNDMScheduler": NoiseLaw.IPNDM,
}
"""By the name of diffusers' class. A class that is not here is of no law that the pack runs."""

LAW_CONFIG = {"rescale_betas_zero_snr": False, "trained_betas": None}
"""Settings that belong to the law, with the value at which a class that does not take them gives the same schedule."""

STABLE_DIFFUSION_BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
"""Those of every published Stable Diffusion 1.x, 2.x and SDXL model, for one whose own scheduler's config has none."""


def law_of(scheduler: Any) -> NoiseLaw | None:
    """Of a scheduler object: its class, unless its config makes that one of flow matching. None: not known here."""
    config = scheduler.config
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return NoiseLaw.FLOW
    return LAW_OF.get(type(scheduler).__name__)
