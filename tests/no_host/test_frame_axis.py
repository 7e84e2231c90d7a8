"""A space of one frame with a mean and a deviation per channel (Qwen-Image's, Wan's): 5-D in the host and in the autoencoder only."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, AutoencoderKLWan

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import to_host_images, to_pixels
from diffusers_relay.pipelines.device.working_memory import decode_bytes, encode_bytes
from diffusers_relay.pipelines.latents.autoencoder import Autoencoder
from diffusers_relay.pipelines.latents.conversion import convert
from diffusers_relay.pipelines.latents.encode_decode import decode, encode
from diffusers_relay.pipelines.latents.latent_space import from_host
from diffusers_relay.pipelines.model.components import PipelineComponents
from reference.scripts import read_like_host, soft_picture
from relay_dev.memory_peak import peak_of_run
from small_models.weights import random_module
from support.without_host import counting_runtime, load

pytestmark = pytest.mark.usefixtures("inference_mode")
CLASSES = (AutoencoderKLQwenImage, AutoencoderKLWan)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@cache
def vae(cls: Any, dtype: torch.dtype = torch.float32, base_dim: int = 8) -> Any:
    """Mean and deviation are the published ones, diffusers' defaults."""
    return random_module(lambda: cls(base_dim=base_dim, num_res_blocks=1), 6).to(dtype)


def model(cls: Any, dtype: torch.dtype = torch.float32) -> PipelineComponents:
    """A model of another space whose autoencoder has frames: only its latents are used here."""
    return load("sd15", dtype).with_changes(modules={"vae": vae(cls, dtype)})


def statistics(module: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and 1 / deviation as QwenImageImg2ImgPipeline computes them."""
    mean = torch.tensor(module.config.latents_mean).view(1, 16, 1, 1, 1).to(like.device, like.dtype)
    return mean, 1.0 / torch.tensor(module.config.latents_std).view(1, 16, 1, 1, 1).to(like.device, like.dtype)


def noise(dtype: torch.dtype = torch.float32, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 16, 1, 8, 8, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_scale_is_the_pipelines(cls: Any, dtype: torch.dtype) -> None:
    module = vae(cls, dtype)
    autoencoder = Autoencoder(module, "qwen", False)
    values = noise(dtype)
    mean, inverse = statistics(module, values)
    assert torch.equal(autoencoder.scale.to_model(values[:, :, 0]), ((values - mean) * inverse)[:, :, 0])
    assert torch.equal(autoencoder.scale.to_raw(values[:, :, 0]), (values / inverse + mean)[:, :, 0])
    assert (autoencoder.factor, autoencoder.channels, autoencoder.has_frames) == (8, 16, True)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_picture_is_encoded_and_decoded_as_in_a_script(cls: Any) -> None:
    picture = read_like_host(soft_picture())
    pixels = to_pixels(picture, 8)
    script = vae(cls).encode(pixels[:, :, None]).latent_dist.sample(torch.Generator().manual_seed(4))
    latent = encode(model(cls), picture, 4, counting_runtime())
    assert torch.equal(latent.samples, script[:, :, 0])
    image = decode(model(cls), latent, False, counting_runtime())
    assert torch.equal(image, to_host_images(vae(cls).decode(script, return_dict=False)[0][:, :, 0]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_decoder_gets_the_bits_of_the_pipeline(dtype: torch.dtype) -> None:
    module = vae(AutoencoderKLQwenImage, dtype)
    painted = noise(dtype)
    mean, inverse = statistics(module, painted)
    script = to_host_images(module.decode(painted / inverse + mean, return_dict=False)[0][:, :, 0])
    autoencoder = Autoencoder(module, "qwen", False)
    raw = autoencoder.to_raw(painted[:, :, 0])
    assert torch.equal(autoencoder.decode(raw, counting_runtime().policy), script)


def test_the_host_s_latent_has_one_frame() -> None:
    latent = encode(model(AutoencoderKLQwenImage), read_like_host(soft_picture()), 4, counting_runtime())
    host = latent.to_host()
    assert host["samples"].shape == (1, 16, 1, 8, 8)
    back = from_host(host)
    assert torch.equal(back.samples, latent.samples)
    assert back.space is latent.space
    assert back.to_host()["samples"].shape == (1, 16, 1, 8, 8)
    # untagged, as some of the host's nodes pass it on
    untagged = from_host({"samples": host["samples"]})
    image = decode(model(AutoencoderKLQwenImage), untagged, False, counting_runtime())
    assert torch.equal(image, decode(model(AutoencoderKLQwenImage), latent, False, counting_runtime()))
    assert untagged.to_host()["samples"].shape == (1, 16, 1, 8, 8)


def test_a_latent_of_a_space_without_frames_has_four_axes_again() -> None:
    latent = encode(model(AutoencoderKLQwenImage), read_like_host(soft_picture()), 4, counting_runtime())
    other = Autoencoder(load("sd15")["vae"], "sd15", False)
    converted = convert(from_host(latent.to_host()), other, counting_runtime())
    assert converted.to_host()["samples"].shape == (
        1,
        4,
        *other.encode(torch.zeros(1, 3, 64, 64), counting_runtime().policy).shape[2:],
    )
    back = convert(converted, Autoencoder(vae(AutoencoderKLQwenImage), "qwen", False), counting_runtime())
    assert back.to_host()["samples"].shape == (1, 16, 1, 8, 8)


def test_a_video_is_refused() -> None:
    with pytest.raises(RelayError, match=r"got \[1, 16, 2, 8, 8\]\. Video"):
        from_host({"samples": torch.zeros(1, 16, 2, 8, 8)})


def test_the_noise_left_in_a_latent_survives_the_host() -> None:
    autoencoder = Autoencoder(vae(AutoencoderKLQwenImage), "qwen", False)
    latent = from_host({"samples": noise()})
    left = latent.with_samples(latent.samples, autoencoder, noise_left=0.5)
    assert from_host(left.to_host()).noise_left == 0.5
    assert from_host(replace(left, samples=left.samples + 1).to_host()).noise_is_void


@pytest.mark.parametrize("cls", CLASSES)
def test_working_memory(cls: Any) -> None:
    module, side = vae(cls, base_dim=32), 256  # with less of either, the CPU's convolutions take other ways
    latent, pixels = torch.randn(1, 16, 1, side // 8, side // 8), torch.randn(1, 3, 1, side, side)
    for formula, call in (
        (decode_bytes(module, side**2, torch.float32), lambda: module.decode(latent)),
        (encode_bytes(module, side**2, torch.float32), lambda: module.encode(pixels)),
    ):
        peak = peak_of_run(call)
        assert peak <= formula <= 2 * peak, formula / peak
