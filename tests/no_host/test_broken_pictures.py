"""No picture is made of values that are no numbers: float16 overflows are run again in float32, and all else is an error."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.latents import encode_decode as coding
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from support.without_host import counting_runtime, encode, load


@pytest.fixture(autouse=True)
def _nothing_encoded() -> Iterator[None]:
    ENCODED.clear()
    yield
    ENCODED.clear()


def with_own(name: str, part: str, dtype: torch.dtype) -> tuple[PipelineComponents, Any]:
    """A model, one part of which is a copy that may be spoilt."""
    model = load(name, dtype)
    module = copy.deepcopy(model[part])
    return model.with_changes(modules={part: module}), module


def overflowing(name: str = "sd15", part: str = "vae") -> tuple[PipelineComponents, Any]:
    """Its values in the middle are beyond float16, and its norms bring them back: a float32 run gives the picture as it was."""
    model, vae = with_own(name, part, torch.float16)
    for side in (vae.encoder, vae.decoder):
        side.conv_in.weight.data.mul_(30000.0)
        side.conv_in.bias.data.mul_(30000.0)
    return model, vae


def test_a_decoder_that_overflows_float16_runs_in_float32_and_that_is_remembered(caplog: Any) -> None:
    model, vae = overflowing()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    picture = coding.decode(model, Latents(latents), False, counting_runtime())
    assert picture.isfinite().all()
    assert picture.std() > 0.02
    assert "overflows in float16" in caplog.text
    caplog.clear()
    assert torch.equal(coding.decode(model, Latents(latents), False, counting_runtime()), picture)
    assert caplog.text == "", "the second time it runs in float32 at once"
    assert autoencoder_of(model).decoding_dtype == torch.float32
    assert vae.dtype == torch.float16


def test_an_encoder_that_overflows_float16_too() -> None:
    model, _ = overflowing()
    latent = coding.encode(model, torch.rand(1, 64, 64, 3), 0, counting_runtime())
    assert latent.samples.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_autoencoder_that_is_damaged_makes_nothing(dtype: torch.dtype) -> None:
    model, vae = with_own("sd15", "vae", dtype)
    vae.decoder.conv_out.bias.data.fill_(float("nan"))
    vae.encoder.conv_in.bias.data.fill_(float("inf"))
    with pytest.raises(RelayError, match=r"latent: the autoencoder of sd15 .*no numbers.*file may be damaged"):
        coding.decode(model, Latents(torch.randn(1, 4, 8, 8)), False, counting_runtime())
    with pytest.raises(RelayError, match=r"image: the autoencoder of sd15 .*no numbers"):
        coding.encode(model, torch.rand(1, 64, 64, 3), 0, counting_runtime())


def test_a_latent_far_out_of_range_makes_nothing() -> None:
    with pytest.raises(RelayError, match=r"latent: .*out of range"):
        coding.decode(load("sd15"), Latents(torch.full((1, 4, 8, 8), 3e38)), False, counting_runtime())


def test_a_broken_latent_does_not_make_its_autoencoder_one_that_overflows() -> None:
    model, _ = with_own("sd15", "vae", torch.float16)
    with pytest.raises(RelayError, match=r"latent: .*no numbers"):
        coding.decode(model, Latents(torch.full((1, 4, 8, 8), 3e38)), False, counting_runtime())
    assert autoencoder_of(model).decoding_dtype == torch.float16


def test_a_black_picture_is_given_and_named() -> None:
    model, vae = with_own("sd15", "vae", torch.float32)
    vae.decoder.conv_out.bias.data.fill_(-50.0)
    runtime = counting_runtime()
    assert not coding.decode(model, Latents(torch.randn(1, 4, 8, 8)), False, runtime).any()
    assert "Every pixel is black" in runtime.monitor.said[0]


@pytest.mark.parametrize("name", ["sd15", "sdxl_base"])
def test_a_denoiser_that_paints_no_numbers_makes_nothing(name: str) -> None:
    model, unet = with_own(name, "unet", torch.float32)
    unet.conv_out.bias.data[0] = float("nan")
    with pytest.raises(RelayError, match=rf"model: {name} painted values that are no numbers .*in float32"):
        text_to_image(model, encode(model, "a cat"), TextToImageSettings(64, 64, 1, 2, 4.0, 1), counting_runtime())
