"""A model folder whose VAE is TAESD (AutoencoderTiny): the script's numbers, and a LATENT in the host's scale."""

from __future__ import annotations

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
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, image_to_image
from reference.scripts import read_like_host, soft_picture
from support.other_vaes import SETTINGS, folder_with_vae, image_to_image_as_script, inpainting_difference
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small model's folder with TAESD instead of its VAE."""

    from diffusers import AutoencoderTiny

    widths = (16, 16, 16, 16)

    def make_vae() -> AutoencoderTiny:
        return AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)

    @cache
    def folder_of(name: str) -> Path:
        return folder_with_vae(name, tmp_path_factory.mktemp("tiny") / name, make_vae, 7)

    return folder_of


@pytest.fixture(scope="module")
def folder(folders: Callable[[str], Path]) -> Path:
    return folders("sd15")


@pytest.fixture(scope="module")
def model(folder: Path) -> PipelineComponents:
    return load_folder(folder, dtype=torch.float32, source="tiny", monitor=SilentMonitor())


def test_image_to_image_is_the_script(model: PipelineComponents, folder: Path) -> None:
    runtime = counting_runtime()
    latent, ours, script = image_to_image_as_script(model, folder, runtime)
    assert (ours - script).abs().max() < 1e-5
    again = image_to_image(model, encode(model, "a cat"), SETTINGS, runtime, latent=latent)
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


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerAncestralDiscreteScheduler])
@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "sd15_inpaint", "sdxl_inpaint"])
def test_inpainting_is_the_script(folders: Callable[[str], Path], name: str, strength: float, scheduler: Any) -> None:
    """TAESD has no distribution: a script draws nothing when it encodes, so the ancestral scheduler's noise comes next."""
    model = load_folder(folders(name), dtype=torch.float32, source=name, monitor=SilentMonitor())
    difference = inpainting_difference(model, folders(name), scheduler, strength, counting_runtime())
    assert difference <= 1e-4  # one draw of noise too many gives 2 to 4


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
