"""Qwen-Image: the numbers of diffusers' pipelines, from a prompt to a picture, and latents with the host's frame axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage
from diffusers_relay.pipelines.device.streaming import streamed
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents, from_host
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference import qwen_image_scripts as scripts
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from support.without_host import Stopped, counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT, NEGATIVE = "a red cat on a big ball", "dog"
TOLERANCE = 1e-6


def picture_of(model: PipelineComponents, latents: Latents) -> np.ndarray:
    return autoencoder_of(model).decode(latents.samples, PlainOffload()).numpy()


def assert_same(ours: np.ndarray, script: np.ndarray) -> None:
    assert ours.shape == script.shape
    assert np.abs(ours - script).max() <= TOLERANCE


def from_text(
    model: PipelineComponents, prompt: Any = None, batch: int = 1, seed: int = 3, runtime: Any = None, **changes: Any
) -> Latents:
    settings = {"width": 64, "height": 64, "steps": 4, "guidance_scale": 1.0, **changes}
    prompt = prompt or encode(model, PROMPT, NEGATIVE)
    runtime = runtime or counting_runtime()
    return text_to_image(model, prompt, TextToImageSettings(batch_size=batch, seed=seed, **settings), runtime)


@pytest.mark.parametrize(
    ("true_cfg_scale", "negative", "size"), [(1.0, NEGATIVE, (64, 64)), (4.0, "", (96, 64))], ids=str
)
def test_text_to_image_is_the_script(
    models: SmallModels, true_cfg_scale: float, negative: str, size: tuple[int, int]
) -> None:
    width, height = size
    model = load("qwen_image")
    changes = {"width": width, "height": height, "true_cfg_scale": true_cfg_scale}
    ours = from_text(model, encode(model, PROMPT, negative), **changes)
    assert ours.to_host()["samples"].shape == (1, 16, 1, height // 8, width // 8)
    script = scripts.text_to_image(models.named["qwen_image"], PROMPT, negative, seed=3, **changes)
    assert_same(picture_of(model, ours), script)


def test_bfloat16_is_the_script_bit_for_bit(models: SmallModels) -> None:
    model, picture = load("qwen_image", torch.bfloat16), soft_picture(64, 64)
    settings = ImageToImageSettings(0.6, 5, 1.0, 3, true_cfg_scale=4.0)
    prompt, image = encode(model, PROMPT, NEGATIVE), read_like_host(picture)
    ours = image_to_image(model, prompt, settings, counting_runtime(), image=image)
    script = scripts.image_to_image(
        *(models.named["qwen_image"], picture, PROMPT, NEGATIVE),
        **{"seed": 3, "true_cfg_scale": 4.0, "dtype": torch.bfloat16},
    )
    assert_same(picture_of(model, ours), script)


@pytest.mark.parametrize(("strength", "true_cfg_scale"), [(0.3, 1.0), (1.0, 4.0)])
def test_image_to_image_is_the_script(models: SmallModels, strength: float, true_cfg_scale: float) -> None:
    model, picture = load("qwen_image"), soft_picture(96, 64)
    settings = ImageToImageSettings(strength, 5, 1.0, 3, true_cfg_scale=true_cfg_scale)
    prompt, image = encode(model, PROMPT, NEGATIVE), read_like_host(picture)
    ours = image_to_image(model, prompt, settings, counting_runtime(), image=image)
    changes = {"strength": strength, "true_cfg_scale": true_cfg_scale, "seed": 3}
    script = scripts.image_to_image(models.named["qwen_image"], picture, PROMPT, NEGATIVE, **changes)
    assert_same(picture_of(model, ours), script)


def test_inpainting_is_the_script(models: SmallModels) -> None:
    model, pictures, mask = load("qwen_image"), [soft_picture(64, 96, one) for one in (1, 2)], mask_picture(64, 96)
    both = torch.cat([read_like_host(one) for one in pictures])
    settings = InpaintSettings(0.6, 5, 1.0, 7, true_cfg_scale=4.0)
    prompt = encode(model, PROMPT, NEGATIVE)
    ours = inpaint(model, prompt, as_mask(mask), settings, counting_runtime(), image=both)
    changes = {"strength": 0.6, "true_cfg_scale": 4.0, "seeds": [7, 8]}
    script = scripts.inpaint(models.named["qwen_image"], pictures, mask, PROMPT, NEGATIVE, **changes)
    assert_same(picture_of(model, ours), script)


def test_a_latent_goes_in_and_what_a_mask_keeps_comes_out() -> None:
    model, picture = load("qwen_image"), read_like_host(soft_picture(96, 64))
    prompt, mask = encode(model, PROMPT), torch.zeros(1, 64, 96)
    mask[:, 16:48, 24:64] = 1
    begin = encode_image(model, picture, 3, counting_runtime())
    runtime = counting_runtime()
    own = from_host({**begin.to_host(), "noise_mask": mask})
    ours = image_to_image(model, prompt, ImageToImageSettings(1.0, 4, 1.0, 3), runtime, latent=own)
    assert dict(runtime.policy.stages) == {Stage.DENOISE: 1}, "no picture is encoded or decoded"
    kept = torch.ones(8, 12, dtype=torch.bool)
    kept[1:7, 2:9] = False
    assert (ours.samples - begin.samples)[..., kept].abs().max() <= 1e-5
    assert (ours.samples - begin.samples)[..., 3:5, 4:7].abs().max() > 0.1


def test_an_image_of_a_batch_is_the_one_made_alone() -> None:
    model = load("qwen_image")
    batch, alone = from_text(model, batch=3, seed=11), from_text(model, seed=13)
    assert (batch.samples[2:] - alone.samples).abs().max() <= 1e-4


def test_steps_are_shown_and_what_is_not_used_is_said() -> None:
    model = load("qwen_image")
    prompt = encode(model, PROMPT, NEGATIVE)
    runtime = counting_runtime(previews=True)
    from_text(model, prompt, runtime=runtime)
    assert runtime.monitor.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [one.shape for one in runtime.monitor.previewed] == 4 * [(1, 16, 8, 8)]
    assert dict(runtime.policy.stages) == {Stage.DENOISE: 1}
    assert runtime.monitor.said == [
        "guidance_scale is not used: qwen_image (Qwen-Image) was trained without it.",
        "The negative prompt is not used: guidance_scale of qwen_image (Qwen-Image) needs none. Set true_cfg_scale above 1 to use it.",
    ]
    stopped = counting_runtime(stop_after=2)
    with pytest.raises(Stopped):
        from_text(model, prompt, runtime=stopped)
    assert stopped.monitor.steps == [(1, 4), (2, 4)]


def test_the_space_is_the_hosts_wan21() -> None:
    """ComfyUI's LatentFormat for Wan 2.1 is (x - mean) / std for each channel, with these as the first of 16."""
    model = load("qwen_image")
    latents = encode_image(model, read_like_host(soft_picture(64, 64)), 3, counting_runtime())
    host = latents.to_host()["samples"]
    assert host.shape == (1, 16, 1, 8, 8)
    ours = autoencoder_of(model).to_model_scale(latents.samples)
    for channel, (mean, deviation) in enumerate([(-0.7571, 2.8184), (-0.7089, 1.4541), (-0.9113, 2.3275)]):
        expected = (host[:, channel, 0] - mean) / deviation
        assert torch.allclose(ours[:, channel], expected, atol=1e-6)
    assert model.family.preview_format == "Wan21"
    assert from_host(latents.to_host()).samples.shape == (1, 16, 8, 8)


def test_streamed_block_by_block_it_gives_the_same() -> None:
    model = load("qwen_image")
    prompt = encode(model, PROMPT)
    whole = from_text(model, prompt)
    with streamed(model["transformer"], torch.device("cpu")):
        parts = from_text(model, prompt)
    assert torch.equal(whole.samples, parts.samples)


def test_only_the_language_model_of_the_text_encoder_is_loaded() -> None:
    encoder = load("qwen_image")["text_encoder"]
    assert type(encoder).__name__ == "Qwen2_5_VLTextModel"
    assert not any("visual" in name or "lm_head" in name for name, _ in encoder.named_parameters())


def test_a_size_that_the_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(RelayError, match="multiples of 16"):
        from_text(load("qwen_image"), width=72)
