"""Kandinsky 2.2's prior: text or a picture -> image embeddings for a decoder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ..base.encoded_once import ENCODED, EncodingKey
from ..base.errors import RelayError
from ..base.images import as_rgb, to_pil
from ..base.numbers import check_numbers, check_strength
from ..denoising.schedulers import build_scheduler
from ..device.offload import Stage
from ..device.out_of_memory import tried_once_more
from ..device.runtime import Runtime
from ..device.working_memory import prior_bytes, vision_bytes
from ..model.components import PipelineComponents
from ..model.embeds import ImageEmbeds, PriorText

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from ..base.monitor import Monitor

PRIOR_PARTS = ("prior", "image_encoder", "text_encoder", "tokenizer", "image_processor")
LEAST_STEPS = 2
"""UnCLIPScheduler divides by the number of steps minus one."""
STAND_IN = "encoded before"
"""The prior's pipeline needs a string, but the overridden text encoding ignores it."""


@dataclass(frozen=True)
class PriorSettings:
    """Settings for the prior's pipelines. ``strength`` is used only with a picture."""

    steps: int
    guidance_scale: float
    seed: int
    strength: float = 1.0


@tried_once_more
def run_prior(
    components: PipelineComponents,
    text: PriorText,
    settings: PriorSettings,
    runtime: Runtime,
    image: torch.Tensor | None = None,
) -> ImageEmbeds:
    """Text embeddings -> image embeddings, by KandinskyV22PriorPipeline, or by KandinskyV22PriorEmb2EmbPipeline with a picture.

    Args:
        components: a prior.
        text: from :func:`weighting.compel_encoder.encode_for_prior`.
        settings: steps, guidance, seed and strength.
        runtime: the devices, and the monitor for progress and cancel.
        image: one IMAGE to start from, with ``settings.strength``.

    Raises:
        RelayError: no step is left to run, or ``image`` has several pictures.
    """
    import torch

    check_prior(settings, image)
    arguments: dict[str, Any] = {} if image is None else {"image": [_one_picture(image)], "strength": settings.strength}
    parts = {name: components[name] for name in PRIOR_PARTS}
    pipeline = _prior_class(from_image=image is not None)(**parts, scheduler=build_scheduler(components))
    pipeline.relay_text, pipeline.relay_monitor = text, runtime.monitor
    prior, image_encoder = components["prior"], components["image_encoder"]
    working_bytes = max(prior_bytes(prior, rows=4), vision_bytes(image_encoder))
    with runtime.policy.on_device(Stage.DENOISE, [prior, image_encoder], working_bytes) as device:
        pipeline.relay_device = device
        positive, negative = pipeline(
            prompt=STAND_IN,
            negative_prompt=None if text.negative is None else STAND_IN,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            generator=torch.Generator().manual_seed(settings.seed),
            **arguments,
        ).to_tuple()
        output_device = runtime.policy.output_device()
        return ImageEmbeds(positive.to(output_device), negative.to(output_device), components.source)


def check_prior(settings: PriorSettings, image: torch.Tensor | None) -> None:
    """Checks the inputs before any model is used.

    Raises:
        RelayError: no step is left to run, or ``image`` has several pictures.
    """
    check_numbers(settings)
    if image is not None:
        _one_picture(image)
    if settings.steps < LEAST_STEPS:
        raise RelayError(
            f"steps: {settings.steps} is too few for the prior, whose scheduler needs at least {LEAST_STEPS}."
        )
    if image is not None:
        check_strength(settings.strength, settings.steps)


@tried_once_more
def embed_image(components: PipelineComponents, image: torch.Tensor, runtime: Runtime) -> ImageEmbeds:
    """One picture -> its own image embeddings. The negative is the embedding of a black picture, as in the prior.

    The positive equals the result of ``KandinskyV22PriorPipeline.interpolate([picture], [1.0])``.

    Raises:
        RelayError: ``image`` has several pictures.
    """
    picture = _one_picture(image)
    encoder = components["image_encoder"]
    content = (encoder.dtype, picture.size, hashlib.sha256(picture.tobytes()).digest())
    key = EncodingKey("image prompt", (encoder, components["image_processor"]), content)
    found = ENCODED.find(key)
    if found is not None:
        positive, negative = (values.to(runtime.policy.output_device()) for values in found)
        return ImageEmbeds(positive, negative, components.source)
    parts = {name: components[name] for name in PRIOR_PARTS}
    pipeline = _prior_class(from_image=True)(**parts, scheduler=build_scheduler(components))
    with runtime.policy.on_device(Stage.DENOISE, [encoder], vision_bytes(encoder)) as device:
        pipeline.relay_device = device
        positive = pipeline._encode_image([picture], device, num_images_per_prompt=1)
        negative = pipeline.get_zero_embed(1, device=device)
    on_cpu = positive.cpu(), negative.cpu()
    ENCODED.keep(key, on_cpu, sum(values.nbytes for values in on_cpu))
    output_device = runtime.policy.output_device()
    return ImageEmbeds(positive.to(output_device), negative.to(output_device), components.source)


def _one_picture(image: torch.Tensor) -> Any:
    if image.shape[0] != 1:
        raise RelayError(
            f"image: expected one picture, got a batch of {image.shape[0]}. Embed each one separately and combine them with Mix Prompts."
        )
    return to_pil(as_rgb(image)[0])


@cache
def _prior_class(from_image: bool) -> Any:
    """The prior's pipeline with its text encoding, device and progress bar overridden."""
    import diffusers
    import torch

    cls = diffusers.KandinskyV22PriorEmb2EmbPipeline if from_image else diffusers.KandinskyV22PriorPipeline

    class BorrowedPrior(cls):  # type: ignore[misc, valid-type]
        relay_text: PriorText
        relay_monitor: Monitor
        relay_device: torch.device

        @property
        def _execution_device(self) -> torch.device:
            return self.relay_device

        def progress_bar(self, iterable: Any = None, total: int | None = None) -> Iterator[Any]:
            for done, step in enumerate(iterable):
                self.relay_monitor.check()
                yield step
                self.relay_monitor.progress(done + 1, len(iterable))

        def _encode_prompt(
            self,
            prompt: Any,
            device: torch.device,
            num_images_per_prompt: int,
            do_classifier_free_guidance: bool,
            negative_prompt: Any = None,
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            text = self.relay_text
            texts = [text.prompt] if text.negative is None else [text.prompt, text.negative]
            if do_classifier_free_guidance:
                # The pipeline expects one unconditional row per text, before the texts.
                texts = [text.negative or text.empty] * len(texts) + texts
            dtype = self.prior.dtype
            return (
                torch.cat([one.pooled for one in texts]).to(device=device, dtype=dtype),
                torch.cat([one.hidden for one in texts]).to(device=device, dtype=dtype),
                torch.cat([one.mask for one in texts]).to(device=device),
            )

    BorrowedPrior.__name__ = cls.__name__
    return BorrowedPrior
