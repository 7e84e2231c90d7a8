"""Each run has its own scheduler, made from the model's config and the user's choice."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.denoising.schedulers import build_scheduler, with_scheduler
from diffusers_relay.pipelines.model.components import SchedulerChoice
from diffusers_relay.pipelines.model.family import KARRAS_DIFFUSION_SCHEDULERS
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference.scripts import read_like_host, soft_picture
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")


def test_the_list_is_diffusers_own() -> None:
    from diffusers.schedulers import KarrasDiffusionSchedulers

    names = {member.name for member in KarrasDiffusionSchedulers}
    assert set(KARRAS_DIFFUSION_SCHEDULERS) == names - {"EDMEulerScheduler"}, "EDM is for models of another kind"


@pytest.mark.parametrize("name", KARRAS_DIFFUSION_SCHEDULERS)
def test_every_scheduler_equals_the_script_s(name: str) -> None:
    """The script: pipe.scheduler = Scheduler.from_config(pipe.scheduler.config)."""
    model = load("sd15")
    choice = with_scheduler(model, SchedulerChoice(name))
    assert type(build_scheduler(choice)).__name__ == name
    image = read_like_host(soft_picture())
    prompt = encode(model, "a red cat", "dog")
    runtime = counting_runtime()
    ours = image_to_image(choice, prompt, ImageToImageSettings(0.7, 5, 5.0, 8), runtime, image=image)
    assert runtime.monitor.steps[-1][0] == runtime.monitor.steps[-1][1], "the bar ends full, whatever a step costs"
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(
        **{part: model[part] for part in ("vae", "text_encoder", "tokenizer", "unet")},
        scheduler=getattr(diffusers, name).from_config(model["scheduler"].config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    script = pipeline(
        "a red cat",
        negative_prompt="dog",
        image=soft_picture(),
        strength=0.7,
        num_inference_steps=5,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(8),
        output_type="latent",
    ).images
    theirs = script.float() / model["vae"].config.scaling_factor
    assert ours.samples.isfinite().all()
    if name == "DPMSolverSDEScheduler":  # draws its noise from a seed of its own, not from the generator
        assert ours.samples.shape == theirs.shape
    else:
        assert torch.equal(ours.samples, theirs)


def test_options_change_the_schedule() -> None:
    model = load("sd15")

    def sigmas(**options: str) -> torch.Tensor:
        scheduler = build_scheduler(with_scheduler(model, SchedulerChoice("EulerDiscreteScheduler", **options)))
        scheduler.set_timesteps(7)
        return scheduler.sigmas

    plain = sigmas()
    for options in (
        {"sigmas": "karras"},
        {"sigmas": "exponential"},
        {"sigmas": "beta"},
        {"timestep_spacing": "trailing"},
    ):
        assert not torch.equal(sigmas(**options), plain), options


def test_the_model_s_own_scheduler_is_never_touched() -> None:
    model = load("sd15")
    before = copy.deepcopy(model["scheduler"].__dict__)
    settings = TextToImageSettings(64, 64, 1, 3, 5.0, 3)
    prompt = encode(model, "a")
    first = text_to_image(model, prompt, settings, counting_runtime())
    assert build_scheduler(model) is not build_scheduler(model)
    other = with_scheduler(model, SchedulerChoice("EulerDiscreteScheduler"))
    between = text_to_image(other, prompt, settings, counting_runtime())
    second = text_to_image(model, prompt, settings, counting_runtime())
    assert torch.equal(first.samples, second.samples)
    assert not torch.equal(first.samples, between.samples)
    after = model["scheduler"].__dict__
    assert before.keys() == after.keys()
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else str(value) == str(after[key])
        assert same, key
    assert model.scheduler == SchedulerChoice()


@pytest.mark.parametrize(
    ("model", "choice", "text"),
    [
        ("sd15", SchedulerChoice("UnCLIPScheduler"), "scheduler: .*UnCLIPScheduler"),
        ("sd15", SchedulerChoice("os"), "scheduler: "),
        ("sd15", SchedulerChoice("PNDMScheduler", sigmas="karras"), "sigmas: PNDMScheduler.*default"),
        ("sd15", SchedulerChoice("EulerDiscreteScheduler", sigmas="gamma"), "sigmas: .*karras, exponential, beta"),
        ("sd15", SchedulerChoice(timestep_spacing="lagging"), "timestep_spacing: .*leading, linspace, trailing"),
        ("kandinsky_prior", SchedulerChoice(timestep_spacing="leading"), "timestep_spacing: UnCLIPScheduler"),
        ("kandinsky_decoder", SchedulerChoice("PNDMScheduler"), "Kandinsky.*DDIMScheduler, DDPMScheduler"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_at_once(model: str, choice: SchedulerChoice, text: str) -> None:
    with pytest.raises(RelayError, match=text):
        with_scheduler(load(model), choice)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
def test_kandinsky_runs_with_its_two(name: str) -> None:
    from support.kandinsky import kandinsky_prompt

    model = with_scheduler(load("kandinsky_decoder"), SchedulerChoice(name))
    made = text_to_image(model, kandinsky_prompt(), TextToImageSettings(64, 64, 1, 3, 4.0, 3), counting_runtime())
    assert made.samples.isfinite().all()


def test_dpm_solver_sde_is_seeded_too() -> None:
    """In a script it draws its noise from nowhere. Here the same seed gives the same picture, alone and in a batch."""
    model = with_scheduler(load("sd15"), SchedulerChoice("DPMSolverSDEScheduler"))
    prompt = encode(model, "a red cat")

    def run(seed: int, batch_size: int) -> torch.Tensor:
        settings = TextToImageSettings(64, 64, batch_size, 4, 5.0, seed)
        return text_to_image(model, prompt, settings, counting_runtime()).samples

    batch = run(2**64 - 2, 3)
    for i, seed in enumerate((2**64 - 2, 2**64 - 1, 0)):
        alone = run(seed, 1)
        assert float((batch[i : i + 1] - alone).abs().max() / alone.abs().max()) <= 1e-5
