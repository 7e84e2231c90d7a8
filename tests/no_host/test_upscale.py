"""The latent upscaler (x2): the script's numbers, any size, any latent space, and its prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler, LMSDiscreteScheduler
from diffusers import StableDiffusionLatentUpscalePipeline as Pipeline

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.denoising.schedulers import with_scheduler
from diffusers_relay.pipelines.device.offload import PlainOffload
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.latent_space import Latents, LatentTag, NoiseLeft, fingerprint, from_host
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.model.embeds import check_prompt_fits
from diffusers_relay.pipelines.model.mixing import mix
from diffusers_relay.pipelines.runs.latent_upscaling import LatentUpscaleSettings, upscale_latent
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from diffusers_relay.weighting.compel_encoder import encode_prompt
from reference import scripts, upscale_scripts
from relay_dev.model_folders import SmallModels
from support.without_host import Stopped, counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT, NEGATIVE = "a red cat on a blue sofa", "dog"
SCALE = 0.18215


def raw(width: int = 64, height: int = 64, batch: int = 1, seed: int = 5) -> torch.Tensor:
    """Raw latents for pictures of that size, as smooth as real latents."""
    coarse = torch.randn(batch, 4, 5, 5, generator=torch.Generator().manual_seed(seed))
    size = (height // 8, width // 8)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic") / SCALE


def run(
    latent: Latents,
    *,
    model: PipelineComponents | None = None,
    prompt: Any = None,
    runtime: Any = None,
    negative: str = "",
    **changes: Any,
) -> Latents:
    model = model or load("x2_upscaler")
    settings = LatentUpscaleSettings(**{"steps": 4, "guidance_scale": 0.0, "seed": 3} | changes)
    prompt = prompt or encode(load("x2_upscaler"), PROMPT, negative)
    return upscale_latent(model, prompt, settings, latent, runtime or counting_runtime())


def tagged(samples: torch.Tensor, model: str = "sd15") -> Latents:
    return Latents(samples, LatentTag(autoencoder_of(load(model))))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (64, 160)])
@pytest.mark.parametrize(
    ("guidance_scale", "negative"), [(0.0, ""), (0.0, NEGATIVE), (1.0, ""), (0.5, NEGATIVE), (9.0, ""), (9.0, NEGATIVE)]
)
def test_equals_the_script(models: SmallModels, width: int, height: int, guidance_scale: float, negative: str) -> None:
    latents = raw(width, height)
    script = upscale_scripts.latent_upscale(
        models.named["x2_upscaler"],
        SCALE * latents,
        PROMPT,
        negative or None,
        guidance_scale=guidance_scale,
        seed=3,
        output_type="latent",
    )
    ours = run(tagged(latents), negative=negative, guidance_scale=guidance_scale)
    assert script.shape == (1, 4, height // 4, width // 4)
    assert ours.samples.dtype == torch.float32
    assert torch.equal(ours.samples, script / SCALE)
    assert script.std() > 0.3


def test_the_prompt_is_read_above_guidance_0_only() -> None:
    prompts = [encode(load("x2_upscaler"), text) for text in (PROMPT, "a blue dog")]
    one, other = (run(tagged(raw()), prompt=prompt).samples for prompt in prompts)
    assert torch.equal(one, other)
    one, other = (run(tagged(raw()), prompt=prompt, guidance_scale=1.0).samples for prompt in prompts)
    assert not torch.allclose(one, other, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_leaves_with_every_bit(models: SmallModels, dtype: torch.dtype) -> None:
    latents = (SCALE * raw()).to(dtype)
    settings: dict[str, Any] = {"seed": 3, "output_type": "latent", "dtype": dtype}
    script = upscale_scripts.latent_upscale(models.named["x2_upscaler"], latents, PROMPT, **settings)
    model = load("x2_upscaler", dtype)
    ours = run(tagged(latents.float() / SCALE), model=model, prompt=encode(model, PROMPT))
    assert torch.equal((ours.samples * SCALE).to(dtype), script)


def test_a_batch_is_the_script_s_and_its_single_runs(models: SmallModels) -> None:
    latents = raw(batch=3)
    script = upscale_scripts.latent_upscale(
        models.named["x2_upscaler"], SCALE * latents, PROMPT, guidance_scale=3.0, seed=[8, 3, 4], output_type="latent"
    )
    ours = run(replace(tagged(latents), batch_index=(5, 0, 1)), guidance_scale=3.0)
    assert torch.allclose(ours.samples, script / SCALE, atol=1e-5 / SCALE)
    alone = run(replace(tagged(latents[1:2]), batch_index=(0,)), guidance_scale=3.0)
    assert torch.allclose(ours.samples[1:2], alone.samples, atol=1e-4)
    assert ours.batch_index == (5, 0, 1)


@pytest.mark.parametrize(("width", "height"), [(72, 64), (104, 88), (8, 8), (40, 200)])
def test_any_other_size_is_filled_up_and_cut_back(models: SmallModels, width: int, height: int) -> None:
    """Equals the script on the padded latent (edges repeated). `test_why_sizes_are_filled_up` shows that the script itself fails."""
    latents = raw(width, height)
    wide, high = (max(8, -(-side // 32) * 4) for side in (width, height))
    larger = torch.nn.functional.pad(latents, (0, wide - width // 8, 0, high - height // 8), mode="replicate")
    script = upscale_scripts.latent_upscale(
        models.named["x2_upscaler"], SCALE * larger, PROMPT, seed=3, output_type="latent"
    )
    ours = run(tagged(latents))
    assert ours.samples.shape == (1, 4, height // 4, width // 4)
    assert torch.equal(ours.samples, script[..., : height // 4, : width // 4] / SCALE)


def test_why_sizes_are_filled_up(models: SmallModels) -> None:
    """When this test fails, diffusers rounds the size itself, and our padding can go."""
    with pytest.raises(RuntimeError, match=r"must match"):
        upscale_scripts.latent_upscale(models.named["x2_upscaler"], raw(72, 64), PROMPT)


@pytest.mark.parametrize("scheduler", [LMSDiscreteScheduler, HeunDiscreteScheduler])
def test_the_other_schedulers(models: SmallModels, scheduler: type) -> None:
    model = with_scheduler(load("x2_upscaler"), SchedulerChoice(scheduler.__name__))
    runtime = counting_runtime()
    ours = run(tagged(raw()), model=model, runtime=runtime)
    script = upscale_scripts.latent_upscale(
        models.named["x2_upscaler"], SCALE * raw(), PROMPT, seed=3, output_type="latent", scheduler=scheduler
    )
    assert torch.equal(ours.samples, script / SCALE)
    assert runtime.monitor.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def gaussian_after(scheduler: Any, mean: float, deviation: float) -> tuple[float, float]:
    """(mean, deviation) at the end of the pipeline's loop, with a model that is exact for a normal distribution."""
    scheduler.set_timesteps(40)
    latents = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
    for sigma, timestep in zip(scheduler.sigmas, scheduler.timesteps):
        seen = scheduler.scale_model_input(latents, timestep) * (sigma**2 + 1).sqrt()
        clean = (mean * sigma**2 + deviation**2 * seen) / (sigma**2 + deviation**2)
        output = (clean - seen / (sigma**2 + 1)) * (sigma**2 + 1).sqrt() / sigma
        prediction = latents / (sigma**2 + 1) + scheduler.scale_model_input(sigma, timestep) * output
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return float(latents.mean()), float(latents.std())


def test_only_schedulers_that_end_in_the_picture_are_offered() -> None:
    """DPM++ 2M runs with the pipeline's preconditioning but ends elsewhere. When this test fails, the family can offer it."""
    model = load("x2_upscaler")
    for name in model.family.schedulers:
        scheduler = (
            __import__("diffusers").__dict__[name].from_config(model["scheduler"].config, prediction_type="sample")
        )
        assert gaussian_after(scheduler, 1.0, 0.5) == pytest.approx((1.0, 0.5), abs=0.06), name
    other = DPMSolverMultistepScheduler.from_config(model["scheduler"].config, prediction_type="sample")
    assert gaussian_after(other, 1.0, 0.5)[0] > 1.2
    for name in ("DPMSolverMultistepScheduler", "DDIMScheduler", "EulerAncestralDiscreteScheduler"):
        with pytest.raises(RelayError, match=rf"can't run '{name}'. It can run: EulerDiscreteScheduler, Heun"):
            with_scheduler(model, SchedulerChoice(name))


def test_the_latent_is_tagged_and_its_mask_goes_through() -> None:
    mask = torch.ones(1, 16, 16)
    read = from_host(tagged(raw()).to_host() | {"noise_mask": mask, "other": 1})
    result = run(read)
    assert result.space is not None
    assert result.space.module is load("x2_upscaler")["vae"]
    assert result.noise_left is None
    assert result.space.is_same_space(autoencoder_of(load("sd15")), PlainOffload())
    assert result.noise_mask is mask
    assert result.to_host()["other"] == 1


def test_an_untagged_latent_is_taken_to_be_in_its_space() -> None:
    runtime = counting_runtime()
    assert torch.equal(run(Latents(raw()), runtime=runtime).samples, run(tagged(raw())).samples)
    assert runtime.monitor.said == []


def test_a_latent_of_another_space_is_converted_as_the_script_encodes_a_picture(models: SmallModels) -> None:
    sdxl = load("sdxl_base")
    settings = TextToImageSettings(64, 64, 1, 3, 5.0, 1)
    latent = text_to_image(sdxl, encode(sdxl, PROMPT), settings, counting_runtime())
    runtime = counting_runtime()
    ours = run(latent, runtime=runtime)
    picture = scripts.sdxl_text_to_image(
        models.named["sdxl_base"], PROMPT, steps=3, guidance_scale=5.0, seed=1, output_type="pt"
    )
    script = upscale_scripts.latent_upscale(models.named["x2_upscaler"], picture, PROMPT, seed=3, output_type="latent")
    assert torch.allclose(ours.samples, script / SCALE, atol=1e-5 / SCALE)
    assert runtime.monitor.said == ["Latent converted from sdxl_base: decoded, then encoded with this seed."]


def test_a_latent_that_holds_noise_is_refused() -> None:
    noise = NoiseLeft(0.8, fingerprint(raw()))
    latent = Latents(raw(), LatentTag(autoencoder_of(load("sdxl_base")), noise))
    with pytest.raises(RelayError, match=r"left at denoising_end 0.8 and still holds noise.*run to the end"):
        run(latent)
    runtime = counting_runtime()
    run(replace(latent, samples=raw(seed=6)), runtime=runtime)
    assert "treated as clean" in runtime.monitor.said[0]


@pytest.mark.parametrize("text", ["a cat", "", "a (cat)1.3 on a mat", "a cat, " * 40])
def test_text_is_what_the_pipeline_encodes(models: SmallModels, text: str) -> None:
    pipeline = scripts.loaded(Pipeline, models.named["x2_upscaler"], {})
    ours = encode(load("x2_upscaler"), text, NEGATIVE)
    hidden, negative, pooled, negative_pooled = pipeline.encode_prompt(
        text.replace("(", "").replace(")1.3", ""), torch.device("cpu"), True, NEGATIVE
    )
    assert ours.positive.pooled is not None
    assert torch.equal(ours.positive.pooled, pooled)
    if ours.positive.hidden.shape == hidden.shape:
        assert torch.equal(ours.positive.hidden, hidden) == ("1.3" not in text)
        assert torch.equal(ours.negative.hidden, negative)
    assert ours.negative.pooled is not None
    assert torch.equal(ours.negative.pooled, negative_pooled)
    empty = pipeline.encode_prompt("", torch.device("cpu"), False)
    assert ours.empty is not None
    assert torch.equal(ours.empty.hidden, empty[0])


def test_a_prompt_of_the_same_encoder_read_at_another_layer_is_refused() -> None:
    """SD1.5 has the same text encoder as the upscaler, but reads it after the layer norm."""
    sd15, x2, x4 = load("sd15"), load("x2_upscaler"), load("x4_upscaler")
    with pytest.raises(RelayError, match=r"encoded for sd15, whose text encoder gives the last layer, normalised"):
        check_prompt_fits(encode(sd15, PROMPT), x2)
    with pytest.raises(
        RelayError, match=r"encoded for x2_upscaler, whose text encoder gives the last layer, not normalised"
    ):
        check_prompt_fits(encode(x2, PROMPT), sd15)
    with pytest.raises(RelayError, match=r"differs from that of x4_upscaler"):
        check_prompt_fits(encode(sd15, PROMPT), x4)
    with pytest.raises(RelayError, match=r"different text encoders"):
        mix(encode(sd15, PROMPT), encode(x2, PROMPT), 0.5)


def test_mixed_prompts_keep_the_empty_text() -> None:
    x2 = load("x2_upscaler")
    mixed = mix(encode(x2, PROMPT), encode(x2, "a dog"), 0.5)
    assert torch.equal(run(tagged(raw()), prompt=mixed).samples, run(tagged(raw())).samples)


def test_clip_skip_is_refused_as_the_pipeline_has_none() -> None:
    with pytest.raises(RelayError, match=r"clip_skip: x2_upscaler .* reads the last layer .* Set clip_skip to 0"):
        encode_prompt(load("x2_upscaler"), PROMPT, "", counting_runtime(), syntax="compel", clip_skip=1)


@pytest.mark.parametrize("name", ["sd15", "x4_upscaler", "kandinsky_decoder"])
def test_other_models_are_refused(name: str) -> None:
    with pytest.raises(RelayError, match=r"can't do latent upscaling. Families that can: Stable Diffusion x2"):
        run(tagged(raw()), model=load(name))


def test_other_tasks_are_refused_for_it() -> None:
    x2 = load("x2_upscaler")
    with pytest.raises(RelayError, match=r"x2 latent upscaler.* can't do text-to-image"):
        text_to_image(x2, encode(x2, PROMPT), TextToImageSettings(64, 64, 1, 3, 5.0, 1), counting_runtime())


def test_steps_are_reported_previewed_and_stopped() -> None:
    runtime = counting_runtime(previews=True)
    run(tagged(raw()), runtime=runtime)
    assert runtime.monitor.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert runtime.monitor.previewed[-1].shape == (1, 4, 16, 16)
    runtime = counting_runtime(stop_after=2)
    with pytest.raises(Stopped):
        run(tagged(raw()), runtime=runtime)
    with pytest.raises(RelayError, match=r"steps: 0 is too few"):
        run(tagged(raw()), steps=0)
