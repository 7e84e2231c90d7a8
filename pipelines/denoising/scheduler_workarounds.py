"""Fixes for bugs in diffusers' scheduler classes, as subclasses. A run's own scheduler is built from them.

tests/no_host/test_scheduler_workarounds.py shows when diffusers has fixed a bug. Then remove its row here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ..base.library_log import without_rounding_warnings

if TYPE_CHECKING:
    import torch


@cache
def corrected(cls: Any) -> Any:
    """``cls``, or a subclass with the same name that fixes a bug of ``cls``."""
    workaround = WORKAROUNDS.get(cls.__name__)
    return cls if workaround is None else type(cls.__name__, (cls,), {"__module__": cls.__module__, **workaround(cls)})


def _order_by_history(cls: Any) -> dict[str, Any]:
    """LMS takes its order from the position in the whole schedule. A run that starts late has fewer derivatives than that:
    the coefficients for the missing ones are left out of the sum, and noise remains."""

    def step(
        self: Any,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        order: int = 4,
        return_dict: bool = True,
    ) -> Any:
        known = len(self.derivatives) + 1
        return cls.step(self, model_output, timestep, sample, order=min(order, known), return_dict=return_dict)

    return {"step": step}


def _noise_at_half_steps(cls: Any) -> dict[str, Any]:
    """For schedulers that call the model at a noise level between two steps. Between the two calls, ``add_noise`` uses the level of
    the whole step, but the latents have the level of the half step. (KDPM2Ancestral goes halfway to a lower level, and that is the
    level of the whole step.)"""

    def add_noise(
        self: Any, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        if self.step_index is None or self.state_in_first_order:
            noisy: torch.Tensor = cls.add_noise(self, original_samples, noise, timesteps)
            return noisy
        half = self.mid_point_sigma if hasattr(self, "mid_point_sigma") else self.sigmas_interpol[self.step_index]
        return original_samples + noise * half.to(original_samples)

    return {"add_noise": add_noise}


def _noise_by_torchsde(cls: Any) -> dict[str, Any]:
    """torchsde warns about the ends of its own interval, which it has rounded itself."""

    def step(
        self: Any,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        return_dict: bool = True,
        s_noise: float = 1.0,
    ) -> Any:
        with without_rounding_warnings():
            return cls.step(self, model_output, timestep, sample, return_dict=return_dict, s_noise=s_noise)

    return {**_noise_at_half_steps(cls), "step": step}


def _begins_at_the_beginning(cls: Any) -> dict[str, Any]:
    """These schedulers round their timesteps. If the first two are equal (beta sigmas, many steps), a run without a begin index
    is assumed to begin at the second, and runs out of steps."""

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        cls.set_timesteps(self, *args, **kwargs)
        self.set_begin_index(0)

    return {"set_timesteps": set_timesteps}


def _also_for_flow(cls: Any) -> dict[str, Any]:
    """The pipelines of flow matching models pass noise levels, and a shift (``mu``) even without dynamic shifting. These schedulers make
    their own levels, and reject what they don't take. Their ``add_noise`` knows flow matching, but the pipelines call it ``scale_noise``."""

    def set_timesteps(
        self: Any,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        **kwargs: Any,
    ) -> None:
        if sigmas is not None:
            num_inference_steps = len(sigmas)
        if mu is not None and self.config.get("use_dynamic_shifting"):
            kwargs["mu"] = mu
        cls.set_timesteps(self, num_inference_steps, device=device, **kwargs)
        self.set_begin_index(0)

    def scale_noise(self: Any, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        noisy: torch.Tensor = self.add_noise(sample, noise, timestep)
        return noisy

    return {"set_timesteps": set_timesteps, "scale_noise": scale_noise}


WORKAROUNDS = {
    "LMSDiscreteScheduler": _order_by_history,
    "KDPM2DiscreteScheduler": _noise_at_half_steps,
    "DPMSolverSDEScheduler": _noise_by_torchsde,
    "DPMSolverMultistepScheduler": _also_for_flow,
    "DPMSolverSinglestepScheduler": _begins_at_the_beginning,
    "DEISMultistepScheduler": _begins_at_the_beginning,
    "UniPCMultistepScheduler": _also_for_flow,
    "SASolverScheduler": _begins_at_the_beginning,
}
"""Class name -> the methods that replace the class's own."""
