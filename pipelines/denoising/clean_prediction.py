"""The clean latents that each step predicts, for previews."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from ..model.laws import NoiseLaw
from .noise_law import law_of

if TYPE_CHECKING:
    import torch

RETURNS_A_NOISY_ONE = frozenset({"TCDScheduler"})
"""Schedulers whose second result is not the clean prediction, but latents at another noise level."""


class CleanPrediction:
    """Records the steps of one scheduler object and returns what they predict. The steps themselves don't change.

    Source: formulas 12 and 15 of https://huggingface.co/papers/2010.02502 and https://huggingface.co/papers/2006.11239;
    for flow matching, section 2 of https://huggingface.co/papers/2403.03206
    """

    def __init__(self, scheduler: Any) -> None:
        """
        Args:
            scheduler: the run's own, before its first step. Its ``step`` stays wrapped.
        """
        self._scheduler = scheduler
        self._last_step: tuple[torch.Tensor, Any, torch.Tensor, Any] | None = None
        own_step = scheduler.step

        @wraps(own_step)  # the pipelines inspect its signature
        def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            result = own_step(model_output, timestep, sample, *args, **kwargs)
            self._last_step = (model_output, timestep, sample, result)
            return result

        scheduler.step = step

    def latents(self) -> torch.Tensor | None:
        """What the last step predicts, [B, C, h, w] in model scale. None before the first step, and if an unknown scheduler
        doesn't return a prediction. It is computed only when this is called."""
        if self._last_step is None:
            return None
        model_output, timestep, sample, result = self._last_step
        if type(self._scheduler).__name__ in RETURNS_A_NOISY_ONE:
            prediction = None
        elif hasattr(result, "prev_sample"):
            prediction = getattr(result, "pred_original_sample", None)
        else:
            prediction = result[1] if len(result) > 1 else None
        return self._from_parts(model_output, timestep, sample) if prediction is None else prediction

    def _from_parts(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor) -> Any:
        """For schedulers that don't return a prediction. They use sample = alpha * clean + sigma * noise.

        In diffusion, alpha² + sigma² = 1. In flow matching, alpha = 1 - sigma, and the model predicts noise - clean.
        """
        scheduler = self._scheduler
        law = law_of(scheduler)
        if law in (NoiseLaw.EDM, NoiseLaw.FLOW):
            sigma = scheduler.sigmas[scheduler.step_index - 1]  # the step has already advanced the index
            if law is NoiseLaw.EDM:  # an EDM model predicts neither noise nor this kind of v
                return scheduler.precondition_outputs(sample, model_output, sigma)
            return sample - sigma * model_output
        if hasattr(
            scheduler, "_sigma_to_alpha_sigma_t"
        ):  # its steps may lie between the model's timesteps; the index has advanced
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
