"""Each run has its own scheduler, built from the model's config and the user's choice."""

from __future__ import annotations

import copy
from typing import Any

import diffusers
import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.denoising.schedulers import build_scheduler, with_scheduler
from diffusers_relay.pipelines.latents.autoencoder import Autoencoder
from diffusers_relay.pipelines.model.component_classes import (
    KARRAS_DIFFUSION_SCHEDULERS,
    MORE_DIFFUSION_SCHEDULERS,
)
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
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
    assert set(KARRAS_DIFFUSION_SCHEDULERS) == names - {"EDMEulerScheduler"}, (
        "EDM schedulers are for another kind of model"
    )


CHOICES: dict[str, tuple[SchedulerChoice, dict[str, Any]]] = {
    # {name: (the node's choice, what a script adds to from_config)}
    **{name: (SchedulerChoice(name), {}) for name in (*KARRAS_DIFFUSION_SCHEDULERS, *MORE_DIFFUSION_SCHEDULERS)},
    "sde-dpmsolver++": (
        SchedulerChoice("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "dpmsolver++ of one that is not": (
        SchedulerChoice("DPMSolverSinglestepScheduler", algorithm_type="dpmsolver++"),
        {"algorithm_type": "dpmsolver++"},
    ),
    "sde-dpmsolver++ in single steps": (
        SchedulerChoice("DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver++"),
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "euler_at_final": (
        SchedulerChoice("DPMSolverMultistepScheduler", euler_at_final=True),
        {"euler_at_final": True},
    ),
    "v_prediction": (
        SchedulerChoice("EulerDiscreteScheduler", prediction_type="v_prediction"),
        {"prediction_type": "v_prediction"},
    ),
    "v_prediction with zero SNR": (
        SchedulerChoice(
            "EulerDiscreteScheduler",
            timestep_spacing="trailing",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
        ),
        {"timestep_spacing": "trailing", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    ),
    "the model's own, with v_prediction": (
        SchedulerChoice(prediction_type="v_prediction"),
        {"prediction_type": "v_prediction"},
    ),
}


@pytest.mark.parametrize("case", CHOICES)
def test_every_scheduler_equals_the_script_s(case: str) -> None:
    """The script: pipe.scheduler = Scheduler.from_config(pipe.scheduler.config)."""
    model = load("sd15")
    asked, changes = CHOICES[case]
    name = asked.class_name or type(model["scheduler"]).__name__
    choice = with_scheduler(model, asked)
    assert type(build_scheduler(choice)).__name__ == name
    image = read_like_host(soft_picture())
    prompt = encode(model, "a red cat", "dog")
    runtime = counting_runtime()
    ours = image_to_image(choice, prompt, ImageToImageSettings(0.7, 5, 5.0, 8), runtime, image=image)
    assert runtime.monitor.steps[-1][0] == runtime.monitor.steps[-1][1], "the bar ends full, whatever a step costs"
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(
        **{part: model[part] for part in ("vae", "text_encoder", "tokenizer", "unet")},
        scheduler=getattr(diffusers, name).from_config(model["scheduler"].config, **changes),
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
    if name in ("DPMSolverSDEScheduler", "LMSDiscreteScheduler"):
        # The first draws its noise from its own seed; the second's late start is fixed, see test_scheduler_workarounds.py.
        assert ours.samples.shape == theirs.shape
    else:
        assert torch.equal(ours.samples, theirs)


def test_the_options_are_all_in_the_config() -> None:
    model = load("sdxl_base")
    asked = SchedulerChoice(
        "DPMSolverMultistepScheduler", "karras", "trailing", "v_prediction", True, "dpmsolver++", True
    )
    config = build_scheduler(with_scheduler(model, asked)).config
    assert (config.use_karras_sigmas, config.timestep_spacing) == (True, "trailing")
    assert (config.prediction_type, config.rescale_betas_zero_snr) == ("v_prediction", True)
    assert (config.algorithm_type, config.euler_at_final) == ("dpmsolver++", True)
    assert build_scheduler(model).config == load("sdxl_base")["scheduler"].config, "the model's own is as it was"


def test_an_edm_model_takes_the_options_of_its_own_schedulers() -> None:
    model = with_own("EDMDPMSolverMultistepScheduler", "sdxl_base", **EDM)
    asked = SchedulerChoice(algorithm_type="sde-dpmsolver++", euler_at_final=True)
    config = build_scheduler(with_scheduler(model, asked)).config
    assert (config.algorithm_type, config.euler_at_final) == ("sde-dpmsolver++", True)
    with pytest.raises(RelayError, match="LCMScheduler can't handle its noise"):
        with_scheduler(model, SchedulerChoice("LCMScheduler"))


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler", "SASolverScheduler"])
def test_previews_of_the_newer_schedulers_are_clean(name: str) -> None:
    """TCD's second result is a noisy latent."""
    model = load("sd15")
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def forward(sample: torch.Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        alpha = model["scheduler"].alphas_cumprod[timestep]
        return ((sample - alpha**0.5 * clean) / (1 - alpha) ** 0.5,)

    runtime = counting_runtime(previews=True)
    prompt = encode(model, "a")
    unet = model["unet"]
    unet.forward = forward
    try:
        view = with_scheduler(model, SchedulerChoice(name))
        text_to_image(
            view, prompt, TextToImageSettings(64, 64, 1, 4, 1.0, 3, eta=0.3 if "TCD" in name else 0.0), runtime
        )
    finally:
        del unet.forward
    assert len(runtime.monitor.previewed) == 4
    for shown in runtime.monitor.previewed:
        assert float((shown - clean).abs().max()) < 0.01


def test_respaced_sigmas_say_how_many_steps_ran() -> None:
    def said(runtime: Any) -> list[str]:
        return [line for line in runtime.monitor.said if "steps ran" in line]

    model = load("sdxl_base")
    view = with_scheduler(model, SchedulerChoice(sigmas="karras"))
    prompt = encode(model, "a")
    runtime = counting_runtime()
    first = text_to_image(view, prompt, TextToImageSettings(64, 64, 1, 10, 3.0, 3, denoising_end=0.6), runtime)
    ran = len(runtime.monitor.steps)
    assert ran != 6
    assert said(runtime) == [
        f"{ran} of 10 steps ran: denoising_start and denoising_end cut at a noise level, which karras sigmas place elsewhere."
    ]
    runtime = counting_runtime()
    image_to_image(view, prompt, ImageToImageSettings(0.5, 10, 3.0, 3), runtime, latent=first)
    assert said(runtime)[0].startswith(f"{10 - ran} of 10 steps ran")
    for runs_whole in (TextToImageSettings(64, 64, 1, 3, 3.0, 3), TextToImageSettings(64, 64, 1, 3, 3.0, 3, 0.6)):
        runtime = counting_runtime()
        text_to_image(view if runs_whole.denoising_end == 1 else model, prompt, runs_whole, runtime)
        assert said(runtime) == []


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
        (
            "sd15",
            SchedulerChoice("EDMEulerScheduler"),
            "sd15 is not an EDM model, and EDMEulerScheduler works only with EDM models",
        ),
        ("sd15", SchedulerChoice("UnCLIPScheduler"), "scheduler: .*UnCLIPScheduler"),
        ("sd15", SchedulerChoice("os"), "scheduler: "),
        ("sd15", SchedulerChoice("PNDMScheduler", sigmas="karras"), "sigmas: PNDMScheduler.*default"),
        ("sd15", SchedulerChoice("EulerDiscreteScheduler", sigmas="gamma"), "sigmas: .*karras, exponential, beta"),
        ("sd15", SchedulerChoice(timestep_spacing="lagging"), "timestep_spacing: .*leading, linspace, trailing"),
        ("kandinsky_prior", SchedulerChoice(timestep_spacing="leading"), "timestep_spacing: UnCLIPScheduler"),
        ("kandinsky_decoder", SchedulerChoice("PNDMScheduler"), "Kandinsky.*DDIMScheduler, DDPMScheduler"),
        ("x4_upscaler", SchedulerChoice("LCMScheduler"), "x4 upscaler can't run 'LCMScheduler'"),
        ("sd15", SchedulerChoice(prediction_type="sample"), "prediction_type: .*default, epsilon, v_prediction"),
        ("kandinsky_prior", SchedulerChoice(prediction_type="epsilon"), "prediction_type: UnCLIPScheduler.*: default."),
        ("sd15", SchedulerChoice("EulerDiscreteScheduler", algorithm_type="dpmsolver++"), "algorithm_type: Euler.*: d"),
        ("sd15", SchedulerChoice("DEISMultistepScheduler", algorithm_type="dpmsolver++"), "algorithm_type: DEIS"),
        ("sd15", SchedulerChoice("SASolverScheduler", algorithm_type="dpmsolver++"), "algorithm_type: SASolver"),
        (
            "sd15",
            SchedulerChoice("DPMSolverMultistepScheduler", algorithm_type="deis"),
            r"algorithm_type: .*dpmsolver\+\+, sde-dpmsolver\+\+",
        ),
        (
            "sd15",
            SchedulerChoice("PNDMScheduler", rescale_betas_zero_snr=True),
            "rescale_betas_zero_snr: PNDMScheduler does not have it. Switch it off, or choose one of: DDIMScheduler",
        ),
        ("sd15", SchedulerChoice("HeunDiscreteScheduler", euler_at_final=True), "euler_at_final: .*DPMSolverMulti"),
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
    """In a script, its noise has no seed. Here the same seed gives the same picture, in a single run and in a batch."""
    model = with_scheduler(load("sd15"), SchedulerChoice("DPMSolverSDEScheduler"))
    prompt = encode(model, "a red cat")

    def run(seed: int, batch_size: int) -> torch.Tensor:
        settings = TextToImageSettings(64, 64, batch_size, 4, 5.0, seed)
        return text_to_image(model, prompt, settings, counting_runtime()).samples

    batch = run(2**64 - 2, 3)
    for i, seed in enumerate((2**64 - 2, 2**64 - 1, 0)):
        alone = run(seed, 1)
        assert float((batch[i : i + 1] - alone).abs().max() / alone.abs().max()) <= 1e-5


def with_own(name: str, family: str = "sd15", **config: Any) -> PipelineComponents:
    """The small model with another scheduler as its own."""
    model = load(family)
    own = getattr(diffusers, name)(**config)
    return model.with_changes(modules={"scheduler": own})


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def paint(model: PipelineComponents, steps: int, strength: float | None = None, **settings: Any) -> torch.Tensor:
    prompt = encode(load("sd15" if model.family.name == "stable-diffusion" else "sdxl_base"), "a")
    if strength is None:
        return text_to_image(
            model, prompt, TextToImageSettings(64, 64, 1, steps, 3.0, 3, **settings), counting_runtime()
        ).samples
    image = read_like_host(soft_picture())
    return image_to_image(
        model, prompt, ImageToImageSettings(strength, steps, 3.0, 3, **settings), counting_runtime(), image=image
    ).samples


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}),
        ("IPNDMScheduler", {}),
        ("UnCLIPScheduler", {}),
        ("CMStochasticIterativeScheduler", {}),
        ("VQDiffusionScheduler", {"num_vec_classes": 16}),
        ("ScoreSdeVeScheduler", {}),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    ],
)
@pytest.mark.parametrize("strength", [None, 0.6])
def test_a_model_s_scheduler_of_another_law_is_refused_and_the_advice_works(
    name: str, config: dict[str, Any], strength: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_own(name, **config)
    with monkeypatch.context() as patch:
        patch.setattr(Autoencoder, "encode", lambda *_: pytest.fail("encoded before it was refused"))
        with pytest.raises(RelayError, match=rf"own scheduler, {name}.*choose EulerDiscreteScheduler in Set Scheduler"):
            paint(model, 4, strength)
    advised = with_scheduler(model, SchedulerChoice("EulerDiscreteScheduler"))
    assert torch.equal(
        build_scheduler(advised).alphas_cumprod, diffusers.EulerDiscreteScheduler(**BETAS).alphas_cumprod
    )
    assert build_scheduler(advised).config.prediction_type == "epsilon"
    assert paint(advised, 4, strength).isfinite().all()


def test_another_scheduler_is_made_with_no_warning(library_warnings: list[str]) -> None:
    model = with_own("VQDiffusionScheduler", num_vec_classes=16)
    build_scheduler(with_scheduler(model, SchedulerChoice("EulerDiscreteScheduler")))
    singlestep = with_scheduler(load("sd15"), SchedulerChoice("DPMSolverSinglestepScheduler"))
    scheduler, plain = (
        build_scheduler(singlestep),
        diffusers.DPMSolverSinglestepScheduler.from_config(load("sd15")["scheduler"].config),
    )
    scheduler.set_timesteps(6)
    assert library_warnings == []
    plain.set_timesteps(6)
    assert scheduler.order_list == plain.order_list, "the same change that diffusers makes"
    assert len(library_warnings) == 1, (
        "diffusers no longer warns about its own defaults: remove the line from _from_choice"
    )


@pytest.mark.parametrize(
    ("name", "config", "most"),
    [
        ("LCMScheduler", BETAS, 50),
        ("LCMScheduler", {**BETAS, "original_inference_steps": 12}, 12),
        ("TCDScheduler", BETAS, 50),
        ("DDIMScheduler", {**BETAS, "num_train_timesteps": 20}, 19),
        ("DDPMScheduler", {**BETAS, "num_train_timesteps": 20, "steps_offset": 0}, 19),
    ],
)
@pytest.mark.parametrize("strength", [None, 0.6])
def test_a_limit_on_steps_is_said_before_anything_is_encoded(
    name: str, config: dict[str, Any], most: int, strength: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_own(name, **config)
    with monkeypatch.context() as patch:
        patch.setattr(Autoencoder, "encode", lambda *_: pytest.fail("encoded before it was refused"))
        with pytest.raises(
            RelayError, match=rf"steps: {name} runs at most {most} steps .* Set steps to {most} or fewer"
        ):
            paint(model, most + 1, strength)
    if most <= 20:
        assert paint(model, most, strength).isfinite().all()
    scheduler = build_scheduler(model)
    scheduler.set_timesteps(most)
    assert len(scheduler.timesteps) == most


EDM = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}


@pytest.mark.parametrize("name", KARRAS_DIFFUSION_SCHEDULERS)
def test_an_edm_model_takes_no_other(name: str) -> None:
    model = with_own("EDMDPMSolverMultistepScheduler", "sdxl_base", **EDM)
    with pytest.raises(RelayError, match=rf"is an EDM model, and {name} can't handle its noise.*EDMEulerScheduler"):
        with_scheduler(model, SchedulerChoice(name))


@pytest.mark.parametrize("name", [None, "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("strength", [None, 0.6])
def test_an_edm_model_ends_in_the_picture_that_it_knows(name: str | None, strength: float | None) -> None:
    model = with_own("EDMDPMSolverMultistepScheduler", "sdxl_base", **EDM)
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def forward(sample: torch.Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        sigma = float((4 * torch.as_tensor(timestep).double().flatten()[0]).exp())  # its timestep is 0.25 log sigma
        total = (sigma**2 + 0.25) ** 0.5
        return ((clean - 0.25 / total**2 * sample * total) * total / (sigma * 0.5),)

    runtime = counting_runtime(previews=True)
    view = with_scheduler(model, SchedulerChoice(name))
    prompt = encode(load("sdxl_base"), "a")
    unet = model["unet"]
    unet.forward = forward
    try:
        if strength is None:
            made = text_to_image(view, prompt, TextToImageSettings(64, 64, 1, 12, 1.0, 3), runtime)
        else:
            image = read_like_host(soft_picture())
            made = image_to_image(view, prompt, ImageToImageSettings(strength, 12, 1.0, 3), runtime, image=image)
    finally:
        del unet.forward
    final = made.samples * model["vae"].config.scaling_factor
    assert float((final - clean).abs().max()) < 0.02
    for shown in runtime.monitor.previewed:
        assert float((shown - clean).abs().max()) < 0.02
    with pytest.raises(RelayError, match="EDM model, which can't run only a part of its schedule"):
        paint(view, 4, denoising_end=0.5)


@pytest.mark.parametrize(
    "name", ["LMSDiscreteScheduler", "HeunDiscreteScheduler", "PNDMScheduler", "DPMSolverSinglestepScheduler"]
)
def test_zero_terminal_snr_is_not_dropped(name: str) -> None:
    model = with_own("EulerDiscreteScheduler", **BETAS, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    with pytest.raises(
        RelayError, match=rf"trained with rescale_betas_zero_snr, which {name} does not support.*DDIMScheduler"
    ):
        with_scheduler(model, SchedulerChoice(name))
    kept = build_scheduler(with_scheduler(model, SchedulerChoice("DDIMScheduler")))
    assert kept.config.rescale_betas_zero_snr and kept.config.prediction_type == "v_prediction"
    assert not kept.config.clip_sample, "latents go beyond 1"
