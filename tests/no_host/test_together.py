"""Features combined in one run: a LoRA, a ControlNet, a mask, a batch and another scheduler."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)

from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.control.units import make_unit
from diffusers_relay.pipelines.denoising.schedulers import with_scheduler
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.loading.controlnet import load_controlnet_folder
from diffusers_relay.pipelines.model.components import SchedulerChoice
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference import adapter_scripts
from reference.adapter_scripts import LoraFile
from reference.control_scripts import edges
from reference.scripts import generator, read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
LORA = "sd15_kohya"


def test_lora_controlnet_and_scheduler_are_the_script_s(models: SmallModels) -> None:
    path = models.models / "loras" / f"{LORA}.safetensors"
    base = load("sd15")
    model = with_scheduler(
        with_lora(base, path, title=LORA, strength=0.7, text_strength=0.4), SchedulerChoice("EulerDiscreteScheduler")
    )
    net = load_controlnet_folder(
        models.controlnets["sd15_depth"], dtype=torch.float32, source="depth", monitor=SilentMonitor()
    )
    unit = make_unit(net, read_like_host(edges()), 0.8, 0.0, 1.0, False)
    settings = TextToImageSettings(64, 64, 1, 4, 7.5, 6)
    ours = text_to_image(model, encode(model, "a cat", "dog"), settings, counting_runtime(), control=(unit,))

    pipe = adapter_scripts.pipeline(models.named["sd15"], [LoraFile(path, 0.7, 0.4)])
    both = StableDiffusionControlNetPipeline(
        **{part: getattr(pipe, part) for part in ("vae", "text_encoder", "tokenizer", "unet")},
        controlnet=ControlNetModel.from_pretrained(models.controlnets["sd15_depth"], torch_dtype=torch.float32),
        scheduler=EulerDiscreteScheduler.from_config(pipe.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    both.set_progress_bar_config(disable=True)
    script = both(
        "a cat",
        image=edges(),
        negative_prompt="dog",
        width=64,
        height=64,
        num_inference_steps=4,
        guidance_scale=7.5,
        controlnet_conditioning_scale=0.8,
        generator=generator(6),
        output_type="latent",
    ).images
    theirs = script.float() / pipe.vae.config.scaling_factor
    assert float((ours.samples - theirs).abs().max() / theirs.abs().max()) <= 1e-6
    plain = text_to_image(base, encode(base, "a cat", "dog"), settings, counting_runtime())
    assert float((ours.samples - plain.samples).abs().max()) > 0.1


def test_a_masked_batch_with_all_of_them_keeps_what_is_not_masked(models: SmallModels) -> None:
    path = models.models / "loras" / f"{LORA}.safetensors"
    model = with_lora(load("sd15"), path, title=LORA, strength=1.0, text_strength=1.0)
    net = load_controlnet_folder(
        models.controlnets["sd15_canny"], dtype=torch.float32, source="canny", monitor=SilentMonitor()
    )
    unit = make_unit(net, read_like_host(edges()), 1.0, 0.0, 1.0, False)
    pictures = torch.cat([read_like_host(soft_picture(64, 64, seed)) for seed in (1, 2)])
    mask = torch.zeros(1, 8, 8)
    mask[:, :, 4:] = 1
    latents = replace(encode_image(model, pictures, 4, counting_runtime()), noise_mask=mask)
    prompt = encode(model, "a cat", "dog")
    settings = ImageToImageSettings(0.8, 5, 7.5, 3)
    painted = image_to_image(model, prompt, settings, counting_runtime(), latent=latents, control=(unit,))
    change = (painted.samples - latents.samples).abs() / latents.samples.abs().max()
    assert float(change[..., :4].max()) <= 1e-7
    assert float(change[..., 4:].mean()) > 0.01
    second = replace(latents, samples=latents.samples[1:], batch_index=(1,), noise_mask=mask)
    alone = image_to_image(model, prompt, settings, counting_runtime(), latent=second, control=(unit,))
    difference = (alone.samples - painted.samples[1:]).abs().max() / painted.samples.abs().max()
    assert float(difference) <= 1e-5


def test_an_inpainting_unet_is_refused_by_the_plain_samplers() -> None:
    """Without the check, diffusers fails deep inside: expected 9 channels, got 4."""
    base = load("sd15")
    unet = UNet2DConditionModel.from_config({**base["unet"].config, "in_channels": 9})
    model = base.with_changes(modules={"unet": unet})
    prompt = encode(base, "a cat")
    image = read_like_host(soft_picture())
    with pytest.raises(RelayError, match="model: sd15 is made for inpainting"):
        text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 4, 7.5, 6), counting_runtime())
    with pytest.raises(RelayError, match="model: sd15 is made for inpainting"):
        image_to_image(model, prompt, ImageToImageSettings(0.8, 5, 7.5, 3), counting_runtime(), image=image)
