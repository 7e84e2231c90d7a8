"""Our nodes and the host's on the same weights, in the host's process: LATENT, IMAGE and CONDITIONING mean the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.denoising.schedulers import build_scheduler, with_scheduler
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from small_models.native_checkpoint import NATIVE_NAME
from support.without_host import counting_runtime, encode

PROMPT, NEGATIVE = "a red cat on a blue sofa", "blurry"


@pytest.fixture(scope="module", autouse=True)
def inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def native(models: SmallModels) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE from the host's own loader."""
    import comfy.sd

    path = models.models / "checkpoints" / f"{NATIVE_NAME}.safetensors"
    return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=True, output_clip=True)[:3]


@pytest.fixture(scope="module")
def ours(models: SmallModels) -> PipelineComponents:
    folder = Path(models.models / "diffusers" / NATIVE_NAME)
    return load_folder(folder, dtype=torch.float32, source=NATIVE_NAME, monitor=SilentMonitor())


@pytest.fixture(scope="module")
def encoded(ours: PipelineComponents) -> list[Any]:
    """(embeds, positive CONDITIONING, negative CONDITIONING) from our node."""
    from diffusers_relay.nodes.prompts import RelayEncodePrompt

    return list(
        RelayEncodePrompt.execute(
            model=ours, prompt=PROMPT, negative_prompt=NEGATIVE, syntax="compel", clip_skip=0
        ).result
    )


def test_compel_at_weight_one_is_clip_text_encode(native: Any, encoded: list[Any]) -> None:
    """The checkpoint is float16, the dtype of the host's text encoders."""
    from nodes import CLIPTextEncode

    for text, conditioning in zip((PROMPT, NEGATIVE), encoded[1:]):
        expected = CLIPTextEncode().encode(native[1], text)[0]
        assert relative(conditioning[0][0], expected[0][0]) <= 1e-5
        assert conditioning[0][0].dtype == expected[0][0].dtype


LONG = "a red cat on a blue sofa, an oil painting of the sea in summer, " * 8
POOLED = {
    "plain": PROMPT,
    "nothing": "",
    "weights": "a (red:1.3) cat on a ((blue)) sofa (:d:0.5)",
    "escapes": r"a red \(dark\) cat (at 10:30 in the morning)",
    "long": LONG,
    "a weight where the first 77 end": "cat " * 73 + "(red blue green:1.2) sofa",
    "a long one there": "cat " * 73 + "(red blue green red blue green red blue green:1.2) sofa",
    "long and weighted": LONG + "(blurry:1.4) " + LONG,
}


@pytest.mark.parametrize("name", POOLED)
def test_pooled_output_is_the_host_s(native: Any, ours: PipelineComponents, name: str) -> None:
    from nodes import CLIPTextEncode

    from diffusers_relay.nodes.prompts import RelayEncodePrompt

    text = POOLED[name]
    theirs = CLIPTextEncode().encode(native[1], text)[0][0][1]["pooled_output"]
    other = CLIPTextEncode().encode(native[1], "a dog")[0][0][1]["pooled_output"]
    _, positive, negative = RelayEncodePrompt.execute(
        model=ours, prompt=text, negative_prompt=text, syntax="a1111", clip_skip=0
    ).result
    for conditioning in (positive, negative):
        mine = conditioning[0][1]["pooled_output"]
        assert mine.dtype == theirs.dtype
        assert relative(mine, theirs) <= 1e-5
        assert relative(mine, other) > 0.01
    skipped = RelayEncodePrompt.execute(
        model=ours, prompt=text, negative_prompt="", syntax="a1111", clip_skip=1
    ).result[1][0][1]["pooled_output"]
    assert relative(skipped, theirs) <= 1e-5, "the host's pooled_output is of the last layer, whatever is skipped"


def test_compel_weights_act_in_the_conditioning(ours: PipelineComponents, encoded: list[Any]) -> None:
    from diffusers_relay.nodes.prompts import RelayEncodePrompt

    weighted = RelayEncodePrompt.execute(
        model=ours, prompt="a red++ cat on a blue sofa", negative_prompt=NEGATIVE, syntax="compel", clip_skip=0
    ).result[1]
    assert relative(weighted[0][0], encoded[1][0][0]) > 0.01


def test_encode_and_decode(native: Any, ours: PipelineComponents) -> None:
    from nodes import VAEDecode, VAEEncode

    image = read_like_host(soft_picture(64, 64))
    runtime = counting_runtime()
    theirs = VAEEncode().encode(native[2], image)[0]["samples"]
    autoencoder = autoencoder_of(ours)
    mine = autoencoder.encode(image.movedim(-1, 1) * 2 - 1, runtime.policy)
    assert relative(mine, theirs) <= 1e-5
    picture = VAEDecode().decode(native[2], {"samples": theirs})[0]
    assert relative(decode(ours, Latents(theirs), tiled=False, runtime=runtime), picture) <= 1e-5


def test_the_host_s_sampler_goes_the_same_way(native: Any, ours: PipelineComponents, encoded: list[Any]) -> None:
    """With the same weights, noise, sigmas and our CONDITIONING, the host's Euler ends where diffusers' Euler ends."""
    import comfy.sample
    import comfy.samplers

    model = with_scheduler(ours, SchedulerChoice("EulerDiscreteScheduler", timestep_spacing="linspace"))
    settings = TextToImageSettings(64, 64, 1, 6, 5.0, 21)
    mine = text_to_image(model, encoded[0], settings, counting_runtime()).samples
    scheduler = build_scheduler(model)
    scheduler.set_timesteps(6)
    empty = torch.zeros(1, 4, 8, 8)
    noise = comfy.sample.prepare_noise(empty, 21)
    theirs = comfy.sample.sample_custom(
        native[0],
        noise,
        5.0,
        comfy.samplers.sampler_object("euler"),
        scheduler.sigmas,
        encoded[1],
        encoded[2],
        empty,
        seed=21,
    )
    # The host scales the initial noise by sqrt(1 + sigma ** 2) = 14.65, diffusers by sigma = 14.61.
    assert relative(mine, theirs) <= 0.02
    assert float(mine.std()) > 0.5


def test_a_soft_mask_restores_what_the_host_s_differential_diffusion_restores(
    native: Any, ours: PipelineComponents, encoded: list[Any]
) -> None:
    import comfy.sample
    import comfy.samplers
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    model = with_scheduler(ours, SchedulerChoice("EulerDiscreteScheduler", timestep_spacing="leading"))
    latent = encode_image(ours, read_like_host(soft_picture(64, 64)), 3, counting_runtime())
    grey = torch.tensor([0.0, 0.12, 0.3, 0.45, 0.55, 0.7, 0.93, 1.0]).repeat_interleave(8).expand(1, 64, 64)
    mask = torch.maximum(grey - torch.linspace(0, 0.11, 64)[:, None], torch.zeros(()))
    settings = InpaintSettings(0.75, 8, 5.0, 21, soft_mask=True)
    mine = inpaint(model, encoded[0], mask, settings, counting_runtime(), latent=latent).samples
    scheduler = build_scheduler(model)
    scheduler.set_timesteps(8)

    def theirs(native_model: Any) -> torch.Tensor:
        return comfy.sample.sample_custom(
            native_model,
            comfy.sample.prepare_noise(latent.samples, 21),
            5.0,
            comfy.samplers.sampler_object("euler"),
            scheduler.sigmas[2:],
            encoded[1],
            encoded[2],
            latent.samples,
            noise_mask=mask,
            seed=21,
        )

    assert relative(mine, theirs(DifferentialDiffusion.execute(native[0]).result[0])) <= 1e-5
    assert relative(mine, theirs(native[0])) > 0.01


def test_conditioning_is_a_new_value_each_time(ours: PipelineComponents) -> None:
    from diffusers_relay.weighting.conditioning import to_conditioning

    embeds = encode(ours, PROMPT)
    first, second = to_conditioning(embeds.positive), to_conditioning(embeds.positive)
    first[0][1]["changed"] = True
    assert "changed" not in second[0][1]


def relative(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    mine, theirs = mine.float(), theirs.float()
    assert mine.shape == theirs.shape
    return float((mine - theirs).abs().max() / theirs.abs().max())
