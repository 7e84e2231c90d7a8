"""What a run is heading for: the clean latents that each step predicts, for previews."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from ..model.laws import NoiseLaw
from .noise_law import law_of

if TYPE_CHECKING:
    import torch


class CleanPrediction:
    """Listens to one scheduler object's steps, and gives what they predict. The steps themselves stay as they are.

    Source: formulas 12 and 15 of https://huggingface.co/papers/2010.02502 and https://huggingface.co/papers/2006.11239;
    for flow matching, section 2 of https://huggingface.co/papers/2403.03206
    """

    def __init__(self, scheduler: Any) -> None:
        """
        Args:
            scheduler: a run's own, before its first step. Its ``step`` is wrapped for as long as it lives.
        """
        self._scheduler = scheduler
        self._heard: tuple[torch.Tensor, Any, torch.Tensor, Any] | None = None
        own_step = scheduler.step

        @wraps(own_step)  # the pipelines read from its signature what it takes
        def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            result = own_step(model_output, timestep, sample, *args, **kwargs)
            self._heard = (model_output, timestep, sample, result)
            return result

        scheduler.step = step

    def latents(self) -> torch.Tensor | None:
        """[B, C, h, w] in model scale, what the last step predicts; None before the first, and where a scheduler of a kind
        that is not known here doesn't say. It is computed here, and not before."""
        if self._heard is None:
            return None
        model_output, timestep, sample, result = self._heard
        if hasattr(result, "prev_sample"):
            said = getattr(result, "pred_original_sample", None)
        else:
            said = result[1] if len(result) > 1 else None
        return self._from_parts(model_output, timestep, sample) if said is None else said

    def _from_parts(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor) -> Any:
        """For the schedulers that don't say it: theirs is sample = alpha * clean + sigma * noise.

        By diffusion alpha² + sigma² = 1. By flow matching alpha = 1 - sigma, and the model says noise - clean.
        """
        scheduler = self._scheduler
        law = law_of(scheduler)
        if law in (NoiseLaw.EDM, NoiseLaw.FLOW):
            sigma = scheduler.sigmas[scheduler.step_index - 1]  # it has counted on
            if law is NoiseLaw.EDM:  # whose model says neither noise nor v of this kind
                return scheduler.precondition_outputs(sample, model_output, sigma)
            return sample - sigma * model_output
        if hasattr(
            scheduler, "_sigma_to_alpha_sigma_t"
        ):  # its steps may lie between the model's own; it has counted on
            alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[scheduler.step_index - 1])
        elif hasattr(scheduler, "alphas_cumprod"):
            alpha, sigma = scheduler.alphas_cumprod[timestep] ** 0.5, (1 - scheduler.alphas_cumprod[timestep]) ** 0.5
        else:
            return None
        kind = scheduler.config.prediction_type
        if kind == "sample":
            return model_output
        if kind == "v_prediction":
            return alpha * sample - sigma * model_output
        return (sample - sigma * model_output) / alpha
