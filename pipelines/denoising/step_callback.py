"""What happens after each denoising step: progress, cancel, previews, and restoring the unmasked area."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.monitor import Monitor
from ..latents.generators import copies_of
from .clean_prediction import CleanPrediction
from .noise_law import part_of_noise_left, with_noise

if TYPE_CHECKING:
    import torch

WHOLE_BATCH = slice(None)


Latents = Callable[["torch.Tensor"], "torch.Tensor"]


def _as_they_are(latents: torch.Tensor) -> torch.Tensor:
    return latents


class StepWatcher:
    """What every run does after each step: progress, cancel, previews, and the mask.

    It is the ``callback_on_step_end`` for the classic pipelines of :func:`.job.borrow_pipeline`. Modular blocks and pipelines with only
    the legacy callback call :meth:`after_step`.
    """

    def __init__(self, monitor: Monitor, mask: KeepUnmasked | None = None) -> None:
        self._monitor = monitor
        self._mask = mask
        self._clean: CleanPrediction | None = None
        self._pack: Latents = _as_they_are
        self._unpack: Latents = _as_they_are
        self.steps = 0
        """The number of steps done."""

    def reads_packed(self, pack: Latents, unpack: Latents) -> None:
        """For a pipeline that works on latents in another shape. ``unpack`` gives them as [B, C, h, w], and ``pack`` as they were."""
        self._pack, self._unpack = pack, unpack

    def show_clean(self, scheduler: Any) -> None:
        """Makes each step show the clean latents that it predicts; ``scheduler`` is the run's own."""
        self._clean = CleanPrediction(scheduler)

    def __call__(self, pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        return self._called(pipeline, step, values, 0, 1)

    def of_run(self, run: int, runs: int) -> Callable[..., dict[str, Any]]:
        """The callback for one of ``runs`` runs of equal length that share a progress bar. With a mask, each run is one image of the batch."""

        def callback(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            return self._called(pipeline, step, values, run, runs)

        return callback

    def _called(self, pipeline: Any, step: int, values: dict[str, Any], run: int, runs: int) -> dict[str, Any]:
        timesteps = pipeline.scheduler.timesteps if pipeline.relay_timesteps is None else pipeline.relay_timesteps
        total = pipeline.num_timesteps
        values["latents"] = self.after_step(step, total, timesteps, values["latents"], run=run, runs=runs)
        pipeline.relay_before_step(step + 1)
        return values

    def after_step(
        self,
        step: int,
        total: int,
        timesteps: torch.Tensor | None,
        latents: torch.Tensor,
        *,
        run: int = 0,
        runs: int = 1,
    ) -> torch.Tensor:
        """The latents to continue with: ``latents`` itself if there is no mask.

        Args:
            step: the index of the finished step, from 0. Schedulers with two model calls per step count each call.
            total: the number of steps in the run.
            timesteps: from the run's first step to the end of the schedule, even if the run stops earlier. Only needed with a
                mask; otherwise it may be None.
            latents: the step's result in model scale, [B, C, h, w] or in the shape of :meth:`reads_packed`.
            run: the index of the run, from 0, if several runs of equal length share a progress bar.
            runs: the number of these runs.

        Raises:
            Exception: the host's own, if the user has cancelled.
        """
        self._monitor.check()
        self.steps = step + 1
        images = slice(run, run + 1) if runs > 1 else WHOLE_BATCH
        if self._mask is not None:
            assert timesteps is not None
            latents = self._pack(self._mask.after_step(step, timesteps, self._unpack(latents), images))
        clean = None if self._clean is None else self._clean.latents()
        preview = None if clean is None else self._unpack(clean)
        if self._mask is not None and preview is not None:
            preview = self._mask.over(preview, images)
        self._monitor.progress(run * total + step + 1, runs * total, preview)
        return latents


class KeepUnmasked:
    """Restores the unmasked area after each step: with the noise of the current step, and clean at the end."""

    def __init__(
        self, noise_mask: torch.Tensor, begin: torch.Tensor, generators: Sequence[torch.Generator], scheduler: Any
    ) -> None:
        """
        Args:
            noise_mask: the host's, any resolution, [H, W], [B, H, W] or [B, 1, H, W]; 1 = repaint.
            begin: [B, C, h, w] in model scale, the clean picture.
            generators: the run's, before it draws its noise. Copies of them draw the same noise here.
            scheduler: the run's own.
        """
        from diffusers.utils.torch_utils import randn_tensor

        self._repaint = fit_mask(noise_mask, begin)
        self._begin = begin
        self._noise = randn_tensor(begin.shape, generator=copies_of(generators), device=begin.device, dtype=begin.dtype)
        self._scheduler = scheduler

    def after_step(
        self, step: int, timesteps: torch.Tensor, latents: torch.Tensor, images: slice = WHOLE_BATCH
    ) -> torch.Tensor:
        """``latents`` with the unmasked area restored. The arguments are those of :meth:`StepWatcher.after_step`.

        Args:
            images: which images of the batch ``latents`` are.
        """
        begin = self._begin[images].to(latents)
        if step + 1 < len(timesteps):
            timestep = timesteps[step + 1 : step + 2].to(latents.device)
            begin = with_noise(self._scheduler, begin, self._noise[images].to(latents), timestep)
        return _blend(latents, begin, self.repainted_at(step, timesteps)[images])

    def over(self, clean: torch.Tensor, images: slice = WHOLE_BATCH) -> torch.Tensor:
        """``clean`` latents with the unmasked area restored, also clean."""
        return _blend(clean, self._begin[images].to(clean), self.repainted()[images])

    def repainted(self) -> torch.Tensor:
        """[B, 1, h, w], 1 = repainted in some step."""
        return self._repaint

    def repainted_at(self, step: int, timesteps: torch.Tensor) -> torch.Tensor:
        """[B, 1, h, w], 1 = repainted in this step."""
        return self._repaint


class KeepByThreshold(KeepUnmasked):
    """Differential diffusion: a pixel whose mask is between 0 and 1 is restored in the first steps, and repainted once at most that
    part of the run's noise is left (see :func:`.noise_law.part_of_noise_left`).

    The thresholds are those of the host's DifferentialDiffusion node. What is 0 is never repainted.

    Source: https://huggingface.co/papers/2306.00950
    """

    def repainted(self) -> torch.Tensor:
        return (self._repaint > 0).float()

    def repainted_at(self, step: int, timesteps: torch.Tensor) -> torch.Tensor:
        threshold = part_of_noise_left(self._scheduler, float(timesteps[step]), float(timesteps[0]))
        return ((self._repaint > 0) & (self._repaint >= threshold)).float()


def _blend(latents: torch.Tensor, begin: torch.Tensor, repaint: torch.Tensor) -> torch.Tensor:
    repaint = repaint.to(latents)
    return repaint * latents + (1 - repaint) * begin


def fit_mask(noise_mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The mask in the shape of ``like``: [B, 1, h, w], or [B, 1, 1, h, w] for video latents. It is resized as the host does (bilinear)
    and repeated to the batch size.

    Raises:
        RelayError: the shape is not a mask's, or a value is NaN or infinite.
    """
    import torch

    mask = noise_mask.float()
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim == 3:
        mask = mask[:, None]
    if mask.ndim != 4 or mask.shape[1] != 1 or min(mask.shape) == 0 or not mask.isfinite().all():
        raise RelayError(
            f"latent: expected a noise_mask of shape [batch, height, width] with values 0..1, got {list(noise_mask.shape)}."
        )
    mask = torch.nn.functional.interpolate(mask, size=like.shape[-2:], mode="bilinear").clamp(0, 1)
    repeats = -(-like.shape[0] // mask.shape[0])
    mask = mask.repeat(repeats, 1, 1, 1)[: like.shape[0]]
    return mask.reshape(like.shape[0], *(1 for _ in like.shape[1:-2]), *like.shape[-2:])
