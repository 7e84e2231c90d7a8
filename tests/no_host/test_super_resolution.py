"""Super-resolution (x4) of whole pictures: the script's numbers, from pictures and from latents. For tiles see test_tiling.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler, PNDMScheduler

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.denoising.schedulers import with_scheduler
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import autoencoder_for_wires, decode, encode
from diffusers_relay.pipelines.latents.latent_space import Latents, LatentTag, NoiseLeft, fingerprint
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs.latent_upscaling import LatentUpscaleSettings, upscale_latent
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, image_to_image
from diffusers_relay.pipelines.runs.super_resolution import SuperResolutionSettings, super_resolution
from reference import scripts, upscale_scripts
from relay_dev.model_folders import SmallModels
from support.without_host import Stopped, counting_runtime, load
from support.without_host import encode as encode_text

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT, NEGATIVE = "a red cat on a blue sofa", "dog"


def picture(width: int = 32, height: int = 32, seed: int = 271) -> torch.Tensor:
    return scripts.read_like_host(scripts.soft_picture(width, height, seed))


def run(
    image: torch.Tensor | None,
    *,
    model: PipelineComponents | None = None,
    negative: str = "",
    runtime: Any = None,
    latent: Latents | None = None,
    **changes: Any,
) -> torch.Tensor:
    model = model or load("x4_upscaler")
    settings = SuperResolutionSettings(
        **{"steps": 4, "guidance_scale": 9.0, "noise_level": 20, "seed": 3, "tile_size": 0} | changes
    )
    prompt = encode_text(model, PROMPT, negative)
    return super_resolution(model, prompt, settings, runtime or counting_runtime(), image=image, latent=latent)


def close(ours: torch.Tensor, script: Any) -> bool:
    assert script.std() > 0.05, "a flat picture proves nothing"
    return bool(np.abs(ours.numpy() - np.asarray(script)).max() <= 1e-5)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (52, 36), (4, 8)])
@pytest.mark.parametrize(
    ("guidance_scale", "noise_level", "negative"), [(9.0, 20, ""), (9.0, 0, NEGATIVE), (1.0, 100, ""), (0.0, 350, "")]
)
def test_equals_the_script(
    models: SmallModels, width: int, height: int, guidance_scale: float, noise_level: int, negative: str
) -> None:
    settings: dict[str, Any] = {"guidance_scale": guidance_scale, "noise_level": noise_level, "seed": 3}
    folder, original = models.named["x4_upscaler"], scripts.soft_picture(width, height)
    script = upscale_scripts.super_resolution(folder, original, PROMPT, negative or None, **settings)
    ours = run(picture(width, height), negative=negative, **settings)
    assert ours.shape == (1, 4 * height, 4 * width, 3)
    assert np.array_equal(ours.numpy(), script)


def test_an_odd_size_takes_the_script_s_own_route(models: SmallModels) -> None:
    script = upscale_scripts.super_resolution(models.named["x4_upscaler"], scripts.soft_picture(35, 30), PROMPT, seed=3)
    assert script.shape == (1, 112, 128, 3)
    assert np.array_equal(run(picture(35, 30)).numpy(), script)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_decodes_as_the_script(models: SmallModels, dtype: torch.dtype) -> None:
    """In float16, the pipeline decodes in float32; the shared autoencoder is restored afterwards."""
    script = upscale_scripts.super_resolution(
        models.named["x4_upscaler"], scripts.soft_picture(32, 32), PROMPT, seed=3, dtype=dtype
    )
    model = load("x4_upscaler", dtype)
    assert model["vae"].config.force_upcast
    assert np.array_equal(run(picture(), model=model).numpy(), script.astype(np.float32))
    assert model["vae"].dtype == dtype


@pytest.mark.parametrize(
    "scheduler", [DDPMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler, PNDMScheduler]
)
def test_other_schedulers(models: SmallModels, scheduler: type) -> None:
    model = with_scheduler(load("x4_upscaler"), SchedulerChoice(scheduler.__name__))
    runtime = counting_runtime()
    ours = run(picture(), model=model, runtime=runtime)
    script = upscale_scripts.super_resolution(
        models.named["x4_upscaler"], scripts.soft_picture(32, 32), PROMPT, seed=3, scheduler=scheduler
    )
    assert close(ours, script)
    assert [done for done, _ in runtime.monitor.steps] == sorted(done for done, _ in runtime.monitor.steps)
    assert runtime.monitor.steps[-1][0] == runtime.monitor.steps[-1][1]


def test_a_batch_is_separate_runs(models: SmallModels) -> None:
    pictures = [scripts.soft_picture(32, 32, seed) for seed in (1, 2, 3)]
    runtime = counting_runtime()
    ours = run(torch.cat([scripts.read_like_host(one) for one in pictures]), runtime=runtime)
    for index, one in enumerate(pictures):
        assert torch.equal(ours[index : index + 1], run(scripts.read_like_host(one), seed=3 + index))
    script = upscale_scripts.super_resolution(models.named["x4_upscaler"], pictures, PROMPT, seed=[3, 4, 5])
    assert close(ours, script)
    assert runtime.monitor.steps == [(done, 12) for done in range(1, 13)]


def test_the_guide_s_chain(models: SmallModels) -> None:
    """Stable Diffusion 1.5, x2 in its latents, x4: the documentation passes the latent to x4, which fails; ours decodes it first."""
    sd15, x2 = load("sd15"), load("x2_upscaler")
    runtime = counting_runtime()
    latent = image_to_image(
        sd15, encode_text(sd15, PROMPT), ImageToImageSettings(0.8, 2, 7.5, 1), runtime, image=picture(64, 64)
    )
    latent = upscale_latent(x2, encode_text(x2, PROMPT), LatentUpscaleSettings(2, 0.0, 2), latent, runtime)
    runtime.policy.stages.clear()
    ours = run(None, latent=latent, runtime=runtime, steps=2)
    named = models.named
    script = upscale_scripts.image_to_x2_to_x4(
        named["sd15"],
        named["x2_upscaler"],
        named["x4_upscaler"],
        scripts.soft_picture(64, 64),
        PROMPT,
        steps=2,
        seeds=(1, 2, 3),
    )
    assert ours.shape == (1, 512, 512, 3)
    assert close(ours, script)
    assert runtime.policy.stages == {Stage.VAE: 2, Stage.DENOISE: 1}
    assert "decoded with the autoencoder of x2_upscaler" in runtime.monitor.said[-1]


@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "kandinsky_decoder"])
def test_a_latent_is_decoded_by_its_own_autoencoder(name: str) -> None:
    runtime = counting_runtime()
    latent = encode(load(name), picture(), 1, runtime)
    expected = run(decode(load(name), latent, False, runtime))
    assert torch.equal(run(None, latent=latent), expected)
    moved = replace(latent, batch_index=(4,))
    assert torch.equal(run(None, latent=moved), run(decode(load(name), latent, False, runtime), seed=7))


def test_latents_that_it_can_not_read_are_refused() -> None:
    latent = encode(load("sd15"), picture(), 1, counting_runtime())
    with pytest.raises(RelayError, match=r"does not say which model made it .* Decode Latent"):
        run(None, latent=Latents(latent.samples))
    space = autoencoder_of(load("sdxl_base"))
    noisy = Latents(latent.samples, LatentTag(space, NoiseLeft(0.7, fingerprint(latent.samples))))
    with pytest.raises(RelayError, match=r"left at denoising_end 0.7 and still holds noise"):
        run(None, latent=noisy)


def test_exactly_one_of_image_and_latent() -> None:
    with pytest.raises(RelayError, match=r"exactly one of them; neither"):
        run(None)
    with pytest.raises(RelayError, match=r"exactly one of them; both"):
        run(picture(), latent=encode(load("sd15"), picture(), 1, counting_runtime()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_level": 351}, "noise_level: 351 is out of range. x4_upscaler takes levels from 0 to 350"),
        ({"noise_level": -1}, "noise_level: -1"),
        ({"steps": 0}, "steps: 0 is too few"),
        ({"tile_size": 100}, "tile_size: tiles can't be 100 pixels.* The nearest is 96"),
        ({"tile_size": 8}, "tile_size: tiles can't be 8 pixels.* The nearest is 64"),
        ({"tile_size": -64}, "tile_size"),
    ],
)
def test_numbers_that_can_not_be(changes: dict[str, Any], message: str) -> None:
    runtime = counting_runtime()
    with pytest.raises(RelayError, match=message):
        run(picture(), runtime=runtime, **changes)
    assert not runtime.policy.stages


@pytest.mark.parametrize(("config", "most"), [({"max_noise_level": 100}, 100), ({}, 350)])
def test_the_model_s_own_greatest_noise_level_counts(config: dict[str, int], most: int) -> None:
    """Uses diffusers' default if model_index.json has no value."""
    model = load("x4_upscaler").with_changes(config=config)
    with pytest.raises(RelayError, match=rf"0 to {most}\."):
        run(picture(), model=model, noise_level=most + 1)
    run(picture(8, 8), model=model, noise_level=most)


def test_a_picture_under_a_latent_pixel_is_refused() -> None:
    with pytest.raises(RelayError, match=r"3x40 is smaller than one latent pixel"):
        run(picture(3, 40))


def test_grey_and_alpha_are_made_rgb() -> None:
    grey = picture()[..., :1]
    assert torch.equal(run(grey), run(grey.expand(-1, -1, -1, 3)))
    alpha = torch.cat([picture(), torch.zeros(1, 32, 32, 1)], dim=-1)
    assert torch.equal(run(alpha), run(picture()))


@pytest.mark.parametrize("name", ["sd15", "x2_upscaler", "sdxl_refiner"])
def test_other_models_are_refused(name: str) -> None:
    with pytest.raises(RelayError, match=r"can't do super-resolution. Families that can: Stable Diffusion x4"):
        run(picture(), model=load(name))


def test_its_latents_are_its_own() -> None:
    x4 = load("x4_upscaler")
    with pytest.raises(RelayError, match=r"no other model can read the latents of x4_upscaler"):
        encode(x4, picture(), 1, counting_runtime())
    with pytest.raises(RelayError, match=r"no other model can read the latents of x4_upscaler"):
        decode(x4, encode(load("sd15"), picture(), 1, counting_runtime()), False, counting_runtime())
    with pytest.raises(RelayError, match=r"no other model can read the latents of x4_upscaler"):
        autoencoder_for_wires(x4)
    assert autoencoder_for_wires(load("x2_upscaler")).factor == 8


def test_cancel_stops_and_leaves_the_model_as_it_was() -> None:
    before = run(picture())
    runtime = counting_runtime(stop_after=2)
    with pytest.raises(Stopped):
        run(picture(), runtime=runtime)
    assert len(runtime.monitor.steps) == 2
    assert torch.equal(run(picture()), before)
