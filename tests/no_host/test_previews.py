"""Previews show the predicted final picture. The test's denoiser knows the picture, so each step must predict exactly that."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.denoising import step_callback as steps
from diffusers_relay.pipelines.denoising.schedulers import with_scheduler
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents, from_host
from diffusers_relay.pipelines.model.component_classes import KARRAS_DIFFUSION_SCHEDULERS
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference.scripts import read_like_host, soft_picture
from support.kandinsky import kandinsky_prompt
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
SIZE = {"width": 64, "height": 64, "batch_size": 1}


class Knowing(torch.nn.Module):
    """A denoiser that knows the clean latents and predicts the exact noise (or v) of its input."""

    def __init__(self, unet: Any, clean: torch.Tensor, scheduler: Any, prediction: str, variance: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.config, self.dtype = unet.config, unet.dtype
        self.clean, self.prediction, self.variance = clean, prediction, variance
        cumulated = scheduler.alphas_cumprod.double()
        self.log_sigmas = ((1 - cumulated) / cumulated).sqrt().log()

    def forward(self, sample: torch.Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        t = min(
            max(float(timestep), 0.0), len(self.log_sigmas) - 1.0
        )  # interpolate between timesteps, like k-diffusion
        low = min(int(t), len(self.log_sigmas) - 2)
        sigma = float((self.log_sigmas[low] + (t - low) * (self.log_sigmas[low + 1] - self.log_sigmas[low])).exp())
        alpha = 1 / (1 + sigma**2) ** 0.5
        sigma *= alpha
        noise = (sample - alpha * self.clean) / sigma
        said = noise if self.prediction == "epsilon" else alpha * noise - sigma * self.clean
        said = torch.cat([said, torch.zeros_like(said)], dim=1) if self.variance else said
        return (said,) if kwargs.get("return_dict") is False else SimpleNamespace(sample=said)


def knowing(name: str, prediction: str, scheduler: str | None = None) -> tuple[PipelineComponents, torch.Tensor]:
    """A model that can only paint one picture, and that picture's latents in model scale."""
    model = load(name)
    runtime = counting_runtime()
    samples = encode_image(model, read_like_host(soft_picture()), 0, runtime).samples
    clean = autoencoder_of(model).to_model_scale(samples)
    own = type(model["scheduler"]).from_config(model["scheduler"].config, prediction_type=prediction)
    denoiser = Knowing(model["unet"], clean, own, prediction, variance=model.family.takes_image_embeds)
    model = model.with_changes(modules={"scheduler": own, "unet": denoiser})
    return model if scheduler is None else with_scheduler(model, SchedulerChoice(scheduler)), clean


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The pipeline's latents after each step."""
    seen: list[torch.Tensor] = []
    after_step = steps.StepWatcher.after_step

    def watched(self: Any, step: int, total: int, timesteps: Any, latents: torch.Tensor, **run: int) -> torch.Tensor:
        seen.append(latents.clone())
        return after_step(self, step, total, timesteps, latents, **run)

    monkeypatch.setattr(steps.StepWatcher, "after_step", watched)
    return seen


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def check(previewed: list[torch.Tensor], noisy: list[torch.Tensor], clean: torch.Tensor, made: torch.Tensor) -> None:
    assert len(previewed) == len(noisy) >= 6
    for step, shown in enumerate(previewed):
        assert distance(shown, clean) < 0.01, step
    assert distance(noisy[0], clean) > 0.5, "at the first step the latents are noise"
    assert distance(previewed[-1], made) < 0.05, "DDIM and similar schedulers leave a little noise"


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", KARRAS_DIFFUSION_SCHEDULERS)
def test_every_scheduler_s_steps_show_the_clean_picture(name: str, prediction: str, noisy: list[torch.Tensor]) -> None:
    model, clean = knowing("sd15", prediction, name)
    runtime = counting_runtime(previews=True)
    settings = TextToImageSettings(**SIZE, steps=6, guidance_scale=3.0, seed=3)
    made = text_to_image(model, encode(load("sd15"), "a"), settings, runtime)
    check(runtime.monitor.previewed, noisy, clean, autoencoder_of(model).to_model_scale(made.samples))


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler"])
def test_a_schedule_of_other_noise_levels_too(name: str, noisy: list[torch.Tensor]) -> None:
    model, clean = knowing("sd15", "epsilon")
    model = with_scheduler(model, SchedulerChoice(name, sigmas="karras"))
    runtime = counting_runtime(previews=True)
    settings = TextToImageSettings(**SIZE, steps=6, guidance_scale=3.0, seed=3)
    made = text_to_image(model, encode(load("sd15"), "a"), settings, runtime)
    assert distance(runtime.monitor.previewed[0], clean) < 0.5 < distance(noisy[0], clean)
    assert distance(runtime.monitor.previewed[-1], autoencoder_of(model).to_model_scale(made.samples)) < 0.05


@pytest.mark.parametrize("scheduler", ["DDPMScheduler", "DDIMScheduler"])
def test_kandinsky_s_learned_variance_is_not_shown(scheduler: str, noisy: list[torch.Tensor]) -> None:
    model, clean = knowing("kandinsky_decoder", "epsilon", scheduler)
    runtime = counting_runtime(previews=True)
    settings = TextToImageSettings(**SIZE, steps=6, guidance_scale=4.0, seed=3)
    made = text_to_image(model, kandinsky_prompt(), settings, runtime)
    check(runtime.monitor.previewed, noisy, clean, made.samples)


def test_what_is_not_masked_is_shown_as_it_stays(noisy: list[torch.Tensor]) -> None:
    model, clean = knowing("sd15", "epsilon", "EulerDiscreteScheduler")
    start = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 8, 8)
    mask[..., 4:] = 1
    latent: Latents = from_host({"samples": start, "noise_mask": mask})
    runtime = counting_runtime(previews=True)
    image_to_image(model, encode(load("sd15"), "a"), ImageToImageSettings(1.0, 6, 3.0, 3), runtime, latent=latent)
    for shown in runtime.monitor.previewed:
        assert torch.equal(shown[..., :4], autoencoder_of(model).to_model_scale(start)[..., :4])
        assert distance(shown[..., 4:], clean[..., 4:]) < 0.01


@pytest.mark.parametrize("name", KARRAS_DIFFUSION_SCHEDULERS)
def test_previews_change_no_bit_of_the_run(name: str) -> None:
    model = with_scheduler(load("sd15"), SchedulerChoice(name))
    image = read_like_host(soft_picture())

    def run(previews: bool) -> torch.Tensor:
        runtime = counting_runtime(previews=previews)
        settings = ImageToImageSettings(0.7, 5, 5.0, 8)
        made = image_to_image(model, encode(model, "a red cat", "dog"), settings, runtime, image=image)
        assert bool(runtime.monitor.previewed) is previews
        return made.samples

    assert torch.equal(run(True), run(False))


@pytest.mark.parametrize(("previews", "computed"), [(False, 0), (True, 4)])
def test_where_nobody_looks_nothing_is_computed(previews: bool, computed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    def count(name: str, function: Callable[..., Any]) -> None:
        def counting(*arguments: Any) -> Any:
            counted.append(name)
            return function(*arguments)

        monkeypatch.setattr(steps.CleanPrediction, name, counting)

    count("__init__", steps.CleanPrediction.__init__)
    count("latents", steps.CleanPrediction.latents)
    model = load("sd15")
    settings = TextToImageSettings(**SIZE, steps=4, guidance_scale=3.0, seed=3)
    model = with_scheduler(model, SchedulerChoice("DDIMScheduler"))
    text_to_image(model, encode(model, "a"), settings, counting_runtime(previews=previews))
    assert counted.count("latents") == computed
    assert counted.count("__init__") == previews
