"""A model folder whose VAE is TAESD (AutoencoderTiny): the script's numbers, and a LATENT in the host's scale."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, image_to_image
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import small_models
from small_models.weights import random_module
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import AutoencoderTiny

    folder = tmp_path_factory.mktemp("tiny") / "model"
    shutil.copytree(small_models().named["sd15"], folder)
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
    assert runtime.monitor.said == [], "its own space: nothing is converted"
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


def test_what_it_can_not_do_is_said(model: PipelineComponents) -> None:
    from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of

    with pytest.raises(RelayError, match=r"the small autoencoder of tiny \(AutoencoderTiny\).*Set VAE"):
        autoencoder_of(model).distributions(torch.zeros(1, 3, 64, 64), counting_runtime().policy)
