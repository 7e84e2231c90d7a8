"""A model folder whose VAE is TAESD (AutoencoderTiny): the script's numbers, and a LATENT in the host's scale."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, image_to_image
from reference import inpaint_scripts
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import small_models
from small_models.weights import random_module
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small model's folder with TAESD instead of its VAE."""

    @cache
    def folder_of(name: str) -> Path:
        from diffusers import AutoencoderTiny

        folder = tmp_path_factory.mktemp("tiny") / name
        shutil.copytree(small_models().named[name], folder)
        shutil.rmtree(folder / "vae")
        widths = (16, 16, 16, 16)
        tiny = random_module(
            lambda: AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths), 7
        )
        tiny.save_pretrained(folder / "vae")
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
        index["vae"] = ["diffusers", "AutoencoderTiny"]
        (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
        return folder

    return folder_of


@pytest.fixture(scope="module")
def folder(folders: Callable[[str], Path]) -> Path:
    return folders("sd15")


@pytest.fixture(scope="module")
def model(folder: Path) -> PipelineComponents:
    return load_folder(folder, dtype=torch.float32, source="tiny", monitor=SilentMonitor())


def test_image_to_image_is_the_script(model: PipelineComponents, folder: Path) -> None:
    from diffusers import AutoPipelineForImage2Image

    runtime = counting_runtime()
    settings = ImageToImageSettings(0.6, 5, 5.0, 3)
    latent = image_to_image(model, encode(model, "a cat"), settings, runtime, image=read_like_host(soft_picture()))
    pipeline = AutoPipelineForImage2Image.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    script = pipeline(
        "a cat",
        image=soft_picture(),
        strength=0.6,
        num_inference_steps=5,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
    ).images.movedim(1, -1)
    ours = decode(model, latent, False, runtime)
    assert (ours - script).abs().max() < 1e-5
    again = image_to_image(model, encode(model, "a cat"), settings, runtime, latent=latent)
    assert runtime.monitor.said == [], "it is the model's own space, so nothing is converted"
    assert again.samples.isfinite().all()


def test_its_latent_is_in_the_host_s_scale(model: PipelineComponents) -> None:
    picture = read_like_host(soft_picture())
    latent = encode_image(model, picture, 0, counting_runtime())
    in_model_scale = model["vae"].encode(picture.movedim(-1, 1) * 2 - 1).latents
    assert torch.allclose(latent.samples, in_model_scale / 0.18215, atol=1e-5)


def test_a_latent_of_the_whole_autoencoder_is_converted(model: PipelineComponents) -> None:
    runtime = counting_runtime()
    latent = encode_image(load("sd15"), read_like_host(soft_picture()), 0, runtime)
    image_to_image(model, encode(model, "a cat"), ImageToImageSettings(0.6, 4, 5.0, 3), runtime, latent=latent)
    assert "converted" in runtime.monitor.said[-1]


SIZE, BOX = (96, 64), (24, 16, 64, 48)
LATENT_BOX = (slice(None), slice(None), slice(2, 6), slice(3, 8))


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerAncestralDiscreteScheduler])
@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "sd15_inpaint", "sdxl_inpaint"])
def test_inpainting_is_the_script(folders: Callable[[str], Path], name: str, strength: float, scheduler: Any) -> None:
    """TAESD has no distribution: a script draws nothing when it encodes, so the ancestral scheduler's noise comes next."""
    mask = mask_picture(*SIZE, BOX)
    model = load_folder(folders(name), dtype=torch.float32, source=name, monitor=SilentMonitor())
    model = model.with_changes(scheduler=SchedulerChoice(scheduler.__name__))
    settings = InpaintSettings(strength, 5, 7.5, 7)
    picture, prompt = read_like_host(soft_picture(*SIZE)), encode(model, "a red cat", "dog")
    ours = inpaint(model, prompt, as_mask(mask), settings, counting_runtime(), image=picture)
    script = inpaint_scripts.inpaint(
        folders(name),
        soft_picture(*SIZE),
        mask,
        "a red cat",
        "dog",
        width=SIZE[0],
        height=SIZE[1],
        seed=7,
        strength=strength,
        scheduler=scheduler,
        output_type="latent",
    )
    theirs = script[LATENT_BOX]
    difference = (autoencoder_of(model).to_model_scale(ours.samples)[LATENT_BOX] - theirs).abs().max()
    assert difference <= 1e-4 * theirs.abs().max()  # one draw of noise too many gives 2 to 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_every_bit(folder: Path, dtype: torch.dtype) -> None:
    """A denoiser's output is decoded as in a script, and a picture is encoded as in a script."""
    model = load_folder(folder, dtype=dtype, source="tiny", monitor=SilentMonitor())
    autoencoder, runtime = autoencoder_of(model), counting_runtime()
    painted = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)).to(dtype)
    script = (model["vae"].decode(painted).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1).float()
    assert torch.equal(decode(model, Latents(autoencoder.to_raw(painted)), False, runtime), script)
    picture = read_like_host(soft_picture())
    latent = encode_image(model, picture, 0, runtime)
    encoded = model["vae"].encode((picture.movedim(-1, 1) * 2 - 1).to(dtype)).latents
    assert torch.equal(autoencoder.to_model_scale(latent.samples).to(dtype), encoded)
