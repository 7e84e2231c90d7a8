"""The super-resolution run: pictures to four times their size, whole or in tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..base.images import Extent, as_rgb, extent_of
from ..base.numbers import check_numbers
from ..denoising.job import DenoisingJob
from ..denoising.schedulers import build_scheduler, check_schedule
from ..denoising.step_callback import StepWatcher
from ..denoising.tiling import Tiles, blended, check_tile_size, tiles_for
from ..device.out_of_memory import tried_once_more
from ..device.runtime import Runtime
from ..families.upscalers import PictureToUpscale
from ..latents.autoencoder import Autoencoder, autoencoder_of
from ..latents.generators import generators_for
from ..latents.latent_space import Latents
from ..model.components import PipelineComponents
from ..model.embeds import ImageEmbeds, PromptEmbeds, check_prompt_fits
from ..model.family import Task
from ..model.family_lookup import require_task
from ..model.prompt_sizes import check_sizes
from .denoise import denoise
from .denoising_range import check_clean
from .inputs import check_counts, check_one_source

if TYPE_CHECKING:
    import torch

    from ..base.monitor import Monitor

SCALE = 4


@dataclass(frozen=True)
class SuperResolutionSettings:
    steps: int
    guidance_scale: float
    noise_level: int
    """How much noise is added to the input picture, in steps of the model's own schedule."""
    seed: int
    tile_size: int = 0
    """Pixels of the input picture; 0: the whole picture at once."""


@tried_once_more
def super_resolution(
    components: PipelineComponents,
    prompt: PromptEmbeds | ImageEmbeds,
    settings: SuperResolutionSettings,
    runtime: Runtime,
    *,
    image: torch.Tensor | None = None,
    latent: Latents | None = None,
) -> torch.Tensor:
    """Pictures at four times their width and height: IMAGE [B, H, W, 3]; image i uses a CPU generator with ``seed + i``.

    The pictures of a batch are painted one after the other. A latent is decoded with its own autoencoder first. With
    tiles, the noise is still drawn for the whole picture, but the UNet and the decoder only see one tile at a time.

    Source: https://huggingface.co/docs/diffusers/api/pipelines/stable_diffusion/upscale

    Raises:
        RelayError: the model is of another kind, the prompt is for another model, not exactly one of ``image`` and ``latent`` is
            given, the noise level or tile size is out of range, the picture is smaller than a latent pixel, or the latent still
            holds noise or does not say which model made it.
    """
    import torch

    require_task(components.family, Task.SUPER_RESOLUTION, components.source)
    check_numbers(settings)
    autoencoder = autoencoder_of(components)
    check_one_source(image, latent)
    check_counts(1, settings.steps)
    check_schedule(components, settings.steps)
    _check_noise_level(settings.noise_level, components)
    check_tile_size(settings.tile_size)
    check_prompt_fits(prompt, components)
    check_sizes(prompt, components, Task.SUPER_RESOLUTION)
    if latent is not None:
        image = _decoded(latent, settings.tile_size, components, runtime)
    assert image is not None
    pictures = as_rgb(image)
    extent = extent_of(pictures).floored(autoencoder.factor)
    if min(extent.width, extent.height) == 0:
        raise RelayError(
            f"image: {extent_of(pictures)} is smaller than one latent pixel ({autoencoder.factor}x{autoencoder.factor}). Use a larger picture."
        )
    tiles = tiles_for(extent, settings.tile_size)
    own_generators = generators_for(latent, settings.seed, pictures.shape[0])
    at_once = extent if tiles is None else tiles.largest

    def job_of(index: int) -> DenoisingJob:
        generator = own_generators[index]
        bar = _Bar(runtime.monitor, index, len(own_generators), 1 if tiles is None else len(tiles))
        return DenoisingJob(
            task=Task.SUPER_RESOLUTION,
            components=components,
            prompt=prompt,
            scheduler=build_scheduler(components, [generator]),
            generators=[generator],
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            on_step=StepWatcher(bar),
            extent=Extent(at_once.width * SCALE, at_once.height * SCALE),
            extras=(PictureToUpscale(pictures[index], settings.noise_level, tiles, bar.tile_done),),
        )

    painted = denoise([job_of(index) for index in range(len(own_generators))], runtime)
    images = [_picture(latents, autoencoder, tiles, runtime) for latents in painted]
    return torch.cat(images) if len(images) > 1 else images[0]


def _picture(latents: torch.Tensor, autoencoder: Autoencoder, tiles: Tiles | None, runtime: Runtime) -> torch.Tensor:
    """Latents in model scale -> IMAGE. The latents are scaled in the decoder's dtype, as in the pipeline."""
    raw = autoencoder.scale.to_raw(latents.to(autoencoder.decoding_dtype))
    if tiles is None:
        return autoencoder.decode(raw, runtime.policy, monitor=runtime.monitor)

    def by_tiles(raw: torch.Tensor, decode: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        def one(part: torch.Tensor) -> torch.Tensor:
            runtime.monitor.check()
            return decode(part).movedim(-1, 1)

        output_device = runtime.policy.output_device()
        return blended(raw, tiles, one, factor=autoencoder.factor, device=output_device).movedim(1, -1)

    at_once = tiles.largest.width * tiles.largest.height * autoencoder.factor**2
    return autoencoder.decode(raw, runtime.policy, whole_by=by_tiles, at_once=at_once, monitor=runtime.monitor)


class _Bar:
    """The monitor for one picture of a run. All pictures and tiles of the run share one progress bar."""

    def __init__(self, monitor: Monitor, picture: int, pictures: int, tiles: int) -> None:
        self._monitor, self._picture, self._pictures, self._tiles = monitor, picture, pictures, tiles
        self._tiles_done = 0
        self._done, self._total = 0, 1

    def check(self) -> None:
        self._monitor.check()

    def expect_latents(self) -> bool:
        return self._monitor.expect_latents()

    def say(self, message: str) -> None:
        self._monitor.say(message)

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        """Reports a step of the picture. With tiles, the bar has already moved, and only the preview is updated."""
        if self._tiles == 1:
            self._done, self._total = self._picture * total + done, self._pictures * total
        self._monitor.progress(self._done, self._total, latents)

    def tile_done(self, predictions: int) -> None:
        """Reports one tile. ``predictions``: how many the UNet makes for one picture."""
        self._tiles_done += 1
        per_picture = predictions * self._tiles
        self._done, self._total = self._picture * per_picture + self._tiles_done, self._pictures * per_picture
        self._monitor.progress(self._done, self._total)


def _decoded(latent: Latents, tile_size: int, components: PipelineComponents, runtime: Runtime) -> torch.Tensor:
    space = latent.space
    if space is None:
        raise RelayError(
            f"latent: it does not say which model made it (a ComfyUI node may have dropped that), so {components.source} can't decode it. "
            "Decode it with Decode Latent (Diffusers) and the model that made it, and connect image; or use Convert Latent with that model first."
        )
    check_clean(latent, components, runtime)
    if latent.picture is not None:
        runtime.monitor.say("The latent's own picture is upscaled, because the upscaler takes pictures.")
        return latent.picture
    runtime.monitor.say(f"Latent decoded with the autoencoder of {space.title}, because the upscaler takes pictures.")
    extent = Extent(latent.samples.shape[3] * space.factor, latent.samples.shape[2] * space.factor)
    tiled = space.can_tile and tiles_for(extent, tile_size) is not None
    return space.decode(latent.samples, runtime.policy, tiled, monitor=runtime.monitor)


def _check_noise_level(level: int, components: PipelineComponents) -> None:
    most = components.config["max_noise_level"]
    if not 0 <= level <= most:
        raise RelayError(f"noise_level: {level} is out of range. {components.source} takes levels from 0 to {most}.")
