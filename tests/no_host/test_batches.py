"""Image i of a batch is the picture that its own seed makes in a single run; masks and a latent's batch index are respected."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.denoising.schedulers import build_scheduler, with_scheduler
from diffusers_relay.pipelines.denoising.step_callback import KeepUnmasked, fit_mask
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    generators,
    image_to_image,
    text_to_image,
)
from reference.scripts import read_like_host, soft_picture
from support.kandinsky import kandinsky_prompt
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
SEED = 2**64 - 2  # seed + 2 wraps around to 0
FAMILIES = ["sd15", "sdxl_base", "kandinsky_decoder"]


def prompt_for(model: PipelineComponents):
    return kandinsky_prompt() if model.family.takes_image_embeds else encode(model, "a red cat", "dog")


def three_pictures() -> torch.Tensor:
    return torch.cat([read_like_host(soft_picture(64, 64, seed)) for seed in (1, 2, 3)])


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """A batch sums in a different order than a single image: measured 2.5e-6 relative."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max() / theirs.abs().max()) <= 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_text_to_image(name: str) -> None:
    model = load(name)
    prompt = prompt_for(model)
    batch = text_to_image(model, prompt, TextToImageSettings(64, 64, 3, 4, 5.0, SEED), counting_runtime())
    for i in range(3):
        seed = (SEED + i) % 2**64
        alone = text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 4, 5.0, seed), counting_runtime())
        assert_close(batch.samples[i : i + 1], alone.samples)
    assert float((batch.samples[0] - batch.samples[1]).abs().max()) > 0.1


@pytest.mark.parametrize("route", ["image", "latent"])
@pytest.mark.parametrize("name", [*FAMILIES, "sdxl_refiner"])
def test_image_to_image(name: str, route: str) -> None:
    model = load(name)
    prompt = prompt_for(model)
    pictures = three_pictures()
    latents = encode_image(model, pictures, 4, counting_runtime())

    def run(seed: int, chosen: slice) -> Latents:
        settings = ImageToImageSettings(0.6, 5, 5.0, seed)
        if route == "image":
            return image_to_image(model, prompt, settings, counting_runtime(), image=pictures[chosen])
        part = Latents(latents.samples[chosen], latents.tag)
        return image_to_image(model, prompt, settings, counting_runtime(), latent=part)

    batch = run(SEED, slice(0, 3))
    for i in range(3):
        assert_close(batch.samples[i : i + 1], run((SEED + i) % 2**64, slice(i, i + 1)).samples)


def test_batch_index_says_which_seed_is_whose() -> None:
    model = load("sd15")
    prompt = prompt_for(model)
    latents = encode_image(model, three_pictures(), 4, counting_runtime())
    settings = ImageToImageSettings(0.6, 5, 5.0, 7)
    whole = image_to_image(model, prompt, settings, counting_runtime(), latent=latents)
    third = Latents(latents.samples[2:], latents.tag, batch_index=(2,))
    alone = image_to_image(model, prompt, settings, counting_runtime(), latent=third)
    assert_close(alone.samples, whole.samples[2:])
    assert alone.batch_index == (2,)


def test_generators_are_on_the_cpu_and_go_round() -> None:
    made = generators(2**64 - 1, range(2))
    assert [g.initial_seed() for g in made] == [2**64 - 1, 0]
    assert {g.device.type for g in made} == {"cpu"}


@pytest.mark.parametrize("name", [*FAMILIES, "sdxl_refiner"])
def test_what_is_not_masked_is_kept(name: str) -> None:
    model = load(name)
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1  # the right half is repainted
    latents = replace(encode_image(model, three_pictures()[:2], 4, counting_runtime()), noise_mask=mask)
    settings = ImageToImageSettings(0.8, 6, 5.0, 3)
    painted = image_to_image(model, prompt_for(model), settings, counting_runtime(), latent=latents)
    change = (painted.samples - latents.samples).abs() / latents.samples.abs().max()
    assert float(change[..., :4].max()) <= 1e-7
    assert float(change[..., 4:].mean()) > 0.01
    assert painted.noise_mask is mask, "as after the host's own sampler"
    free = image_to_image(
        model, prompt_for(model), settings, counting_runtime(), latent=replace(latents, noise_mask=None)
    )
    seen = (painted.samples - free.samples).abs()[..., 4:].mean()
    assert float(seen) > 1e-4, "the repainted half must see the kept half"


@pytest.mark.parametrize(
    "scheduler",
    [
        "PNDMScheduler",
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    ],
)
def test_the_mask_is_kept_with_every_kind_of_scheduler(scheduler: str) -> None:
    model = with_scheduler(load("sd15"), SchedulerChoice(scheduler))
    mask = torch.zeros(1, 8, 8)
    mask[:, 4:] = 1
    latents = replace(encode_image(model, three_pictures()[:1], 4, counting_runtime()), noise_mask=mask)
    painted = image_to_image(
        model, prompt_for(model), ImageToImageSettings(0.5, 8, 5.0, 3), counting_runtime(), latent=latents
    )
    change = (painted.samples - latents.samples).abs() / latents.samples.abs().max()
    assert float(change[:, :, :4].max()) <= 1e-7
    assert float(change[:, :, 4:].mean()) > 0.01


def test_an_all_ones_mask_changes_nothing() -> None:
    model = load("sd15")
    latents = encode_image(model, three_pictures()[:1], 4, counting_runtime())
    settings = ImageToImageSettings(0.8, 5, 5.0, 3)
    free = image_to_image(model, prompt_for(model), settings, counting_runtime(), latent=latents)
    masked = replace(latents, noise_mask=torch.ones(1, 64, 64))
    same = image_to_image(model, prompt_for(model), settings, counting_runtime(), latent=masked)
    assert torch.equal(same.samples, free.samples)


def test_a_mask_is_fitted_as_the_host_fits_it() -> None:
    like = torch.zeros(3, 4, 8, 16)
    assert fit_mask(torch.ones(64, 128), like).shape == (3, 1, 8, 16)
    two = torch.stack([torch.zeros(8, 16), torch.ones(8, 16)])
    assert fit_mask(two, like).amax(dim=(1, 2, 3)).tolist() == [0, 1, 0]
    assert fit_mask(two[:, None], like).shape == (3, 1, 8, 16)
    for bad in (torch.ones(1, 3, 8, 16), torch.ones(0, 8, 8), torch.full((1, 8, 8), float("nan"))):
        with pytest.raises(RelayError, match="noise_mask"):
            fit_mask(bad, like)


def test_a_mask_and_a_denoising_start_do_not_go_together() -> None:
    model = load("sdxl_refiner")
    latents = replace(encode_image(model, three_pictures()[:1], 4, counting_runtime()), noise_mask=torch.ones(1, 8, 8))
    with pytest.raises(RelayError, match="noise_mask"):
        image_to_image(
            model,
            prompt_for(model),
            ImageToImageSettings(0.5, 5, 5.0, 3, denoising_start=0.5),
            counting_runtime(),
            latent=latents,
        )


def test_the_kept_part_has_the_run_s_own_noise_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the repainted part fits the kept part: no model is trained on noisy pictures with a clean part."""
    blended: list[torch.Tensor] = []
    after_step = KeepUnmasked.after_step
    monkeypatch.setattr(
        KeepUnmasked, "after_step", lambda *arguments: blended.append(after_step(*arguments)) or blended[-1]
    )
    model = with_scheduler(load("sd15"), SchedulerChoice("DDIMScheduler"))
    mask = torch.zeros(1, 8, 8)
    mask[:, 4:] = 1
    latents = replace(encode_image(model, three_pictures()[:1], 4, counting_runtime()), noise_mask=mask)
    runtime = counting_runtime(previews=True)
    image_to_image(model, prompt_for(model), ImageToImageSettings(1.0, 5, 5.0, 3), runtime, latent=latents)
    scheduler = build_scheduler(model)
    scheduler.set_timesteps(5)
    begin = latents.samples * model["vae"].config.scaling_factor
    noise = torch.randn(begin.shape, generator=torch.Generator().manual_seed(3))
    assert len(blended) == 5
    for step, shown in enumerate(blended[:-1]):
        expected = scheduler.add_noise(begin, noise, scheduler.timesteps[step + 1 : step + 2])
        assert torch.allclose(shown[:, :, :4], expected[:, :, :4], atol=1e-5), step
    assert torch.equal(blended[-1][:, :, :4], begin[:, :, :4]), "the kept part has no noise at the end"
    for shown in runtime.monitor.previewed:
        assert torch.equal(shown[:, :, :4], begin[:, :, :4]), "a preview has no noise in the kept part"
