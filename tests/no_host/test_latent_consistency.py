"""Latent Consistency Models from folders: the script's numbers, masks, limits on steps, and a guidance that is an input of the UNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.denoising.guidance import with_guidance
from diffusers_relay.pipelines.denoising.job import denoising_bytes
from diffusers_relay.pipelines.denoising.schedulers import with_scheduler
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.device.working_memory import unet_bytes
from diffusers_relay.pipelines.latents.autoencoder import Autoencoder
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs import sampling
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.weighting.compel_encoder import encode_prompt
from reference import task_scripts
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from support.lcm import make_lcm
from support.tasks import assert_same, paint
from support.without_host import Stopped, counting_runtime, encode

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT = "a red cat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lcm(tmp_path_factory.mktemp("lcm") / "lcm")


@pytest.fixture(scope="module")
def model(folder: Path) -> PipelineComponents:
    return load_folder(folder, dtype=torch.float32, source="lcm", monitor=SilentMonitor())


@pytest.mark.parametrize("guidance_scale", [1.0, 8.5])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("task", ["text", "image"])
def test_it_is_the_script_s(
    folder: Path, model: PipelineComponents, task: str, steps: int, guidance_scale: float
) -> None:
    made = paint(model, task, encode(model, PROMPT), steps=steps, guidance_scale=guidance_scale)
    # its pipelines take no negative prompt
    script = task_scripts.paint(
        folder, task, PROMPT, takes_negative=False, num_inference_steps=steps, guidance_scale=guidance_scale
    )
    assert_same(made, script)


def test_the_guidance_scale_is_read_in_one_row(model: PipelineComponents, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = encode(model, PROMPT, "dog")
    low, high = (paint(model, "text", prompt, guidance_scale=scale) for scale in (1.0, 9.0))
    assert np.abs(low - high).max() > 1e-3
    assert np.array_equal(high, paint(model, "text", encode(model, PROMPT), guidance_scale=9.0)), "no negative prompt"
    jobs: list[Any] = []
    monkeypatch.setattr(sampling, "denoise", lambda given, _: [jobs.extend(given) or torch.zeros(1, 4, 8, 12)])
    paint(model, "text", prompt, guidance_scale=9.0)
    assert denoising_bytes(jobs[0]) == unet_bytes(model["unet"], rows=1, latent_pixels=8 * 12, controlnets=0)


def test_what_is_not_masked_is_kept(model: PipelineComponents) -> None:
    image = read_like_host(soft_picture())
    kept = encode_image(model, image, 4, counting_runtime())
    settings = InpaintSettings(0.8, 4, 5.0, 4)
    mask = as_mask(mask_picture(64, 64, (24, 16, 56, 48)))
    made = inpaint(model, encode(model, PROMPT), mask, settings, counting_runtime(), latent=kept)
    changed = (made.samples - kept.samples).abs()
    assert float(changed[..., :2, :].max()) < 1e-5 and float(changed[..., :, :3].max()) < 1e-5
    assert float(changed[..., 2:6, 3:7].max()) > 0.1


def test_progress_previews_and_cancel(model: PipelineComponents) -> None:
    runtime = counting_runtime(previews=True)
    paint(model, "image", encode(model, PROMPT), runtime=runtime, steps=4)
    assert runtime.monitor.steps == [(step, 4) for step in (1, 2, 3, 4)]
    assert len(runtime.monitor.previewed) == 4
    with pytest.raises(Stopped):
        paint(model, "text", encode(model, PROMPT), runtime=counting_runtime(stop_after=2))


def test_another_seed_encodes_nothing(model: PipelineComponents) -> None:
    runtime = counting_runtime()
    ENCODED.clear()
    for seed in (1, 2):
        prompt = encode_prompt(model, PROMPT, "", runtime, syntax="compel", clip_skip=0)
        paint(model, "image", prompt, runtime=runtime, seed=seed)
    assert (runtime.policy.stages[Stage.TEXT], runtime.policy.stages[Stage.VAE]) == (1, 1)


@pytest.mark.parametrize(
    ("strength", "steps", "says"),
    [
        (0.1, 6, r"steps: LCMScheduler runs at most 5 steps with lcm at strength 0\.1, but steps is 6"),
        (0.7, 60, r"steps: LCMScheduler runs at most 35 steps with lcm at strength 0\.7"),
        (1.0, 51, "steps: LCMScheduler runs at most 50 steps with lcm, but steps is 51"),
        (0.0, 4, "strength: 0 changes nothing"),
        (1.2, 4, r"strength: 1\.2 is above 1"),
    ],
)
def test_a_limit_on_steps_is_said_before_anything_is_encoded(
    model: PipelineComponents, strength: float, steps: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, image = encode(model, PROMPT), read_like_host(soft_picture())
    settings = sampling.ImageToImageSettings(strength, steps, 5.0, 3)
    monkeypatch.setattr(Autoencoder, "encode", lambda *_: pytest.fail("encoded before it was refused"))
    with pytest.raises(RelayError, match=says):
        sampling.image_to_image(model, prompt, settings, counting_runtime(), image=image)


def test_what_it_does_not_have(model: PipelineComponents) -> None:
    with pytest.raises(RelayError, match=r"can't run 'EulerDiscreteScheduler'\. It can run: LCMScheduler"):
        with_scheduler(model, SchedulerChoice("EulerDiscreteScheduler"))
    with pytest.raises(RelayError, match="guidance_rescale: the pipelines of lcm"):
        with_guidance(model, 0.5, 0.0, "mid")
    with pytest.raises(RelayError, match="pag_scale: diffusers has no PAG for lcm"):
        with_guidance(model, 0.0, 3.0, "mid")
    with pytest.raises(RelayError, match="eta: the pipelines of lcm"):
        paint(model, "text", encode(model, PROMPT), eta=0.5)


def test_a_stable_diffusion_prompt_and_latent_fit(model: PipelineComponents) -> None:
    """It has Stable Diffusion's text encoder and autoencoder."""
    from support.without_host import load

    sd15, runtime = load("sd15"), counting_runtime()
    latent = encode_image(sd15, read_like_host(soft_picture()), 3, runtime)
    settings = sampling.ImageToImageSettings(0.5, 4, 5.0, 3)
    sampling.image_to_image(model, encode(sd15, PROMPT), settings, runtime, latent=latent)
    assert not runtime.monitor.said, "nothing is converted"
    assert diffusers.LatentConsistencyModelPipeline.__name__ in model.family.recognised_by
