"""NaN and infinite values never become a picture: a float16 overflow runs again in float32, and anything else is an error."""

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
from diffusers_relay.pipelines.latents.decoder import decoded_in
from diffusers_relay.pipelines.latents.encoder import encoded_once
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
    """A model with its own copy of one part, which the test can damage."""
    model = load(name, dtype)
    module = copy.deepcopy(model[part])
    return model.with_changes(modules={part: module}), module


def overflowing(name: str = "sd15", part: str = "vae") -> tuple[PipelineComponents, Any]:
    """Its intermediate values overflow float16 and its norms scale them back, so a float32 run gives the original picture."""
    model, vae = with_own(name, part, torch.float16)
    for side in (vae.encoder, vae.decoder):
        side.conv_in.weight.data.mul_(30000.0)
        side.conv_in.bias.data.mul_(30000.0)
    return model, vae


def sometimes_overflowing() -> PipelineComponents:
    """Its intermediate values are close to float16's limit: small inputs stay below it, large ones overflow."""
    model, vae = with_own("sd15", "vae", torch.float16)
    for side, most in ((vae.encoder, 3000.0), (vae.decoder, 3000.0)):
        side.conv_in.weight.data.mul_(most)
        side.conv_in.bias.data.mul_(most)
    return model


def test_a_latent_that_overflows_float16_is_decoded_in_float32_and_changes_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, runtime, said = sometimes_overflowing(), counting_runtime(), []
    monkeypatch.setattr(runtime.policy, "say", said.append)
    quiet = 0.1 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    loud = 3000.0 * quiet
    first = coding.decode(model, Latents(quiet), False, runtime)
    assert said == []
    assert decoded_in(autoencoder_of(model), loud, runtime.policy, torch.float16).isnan().any()
    beyond = coding.decode(model, Latents(loud), False, runtime)
    assert beyond.isfinite().all()
    assert said == ["The autoencoder of sd15 overflowed in float16, so it ran again in float32."]
    assert torch.equal(coding.decode(model, Latents(quiet), False, runtime), first)
    assert torch.equal(coding.decode(model, Latents(loud), False, runtime), beyond)
    together = coding.decode(model, Latents(torch.cat([quiet, loud])), False, runtime)
    assert (together[0] - first[0]).abs().max() < 2e-3, (
        "it is still decoded in float16, even next to one that overflows"
    )
    assert model["vae"].dtype == torch.float16


def test_a_picture_that_overflows_float16_is_encoded_in_float32_and_changes_no_other() -> None:
    model, runtime = sometimes_overflowing(), counting_runtime()
    autoencoder = autoencoder_of(model)
    quiet = 0.001 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    loud = 50000.0 * quiet
    (plain,), (overflown,) = (
        encoded_once(model["vae"], [one], runtime.policy, torch.float16, tiling=False, title="sd15")
        for one in (quiet, loud)
    )
    assert not overflown.isfinite().all()
    ENCODED.clear()
    assert autoencoder._encoded([loud], runtime.policy)[0].dtype == torch.float32
    ENCODED.clear()
    both = autoencoder._encoded([loud, quiet], runtime.policy)
    assert torch.equal(both[1], plain)
    assert [one.dtype for one in both] == [torch.float32, torch.float16]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_autoencoder_that_is_damaged_makes_nothing(dtype: torch.dtype) -> None:
    model, vae = with_own("sd15", "vae", dtype)
    vae.decoder.conv_out.bias.data.fill_(float("nan"))
    vae.encoder.conv_in.bias.data.fill_(float("inf"))
    with pytest.raises(RelayError, match=r"latent: the autoencoder of sd15 .*NaN or infinite.*file may be damaged"):
        coding.decode(model, Latents(torch.randn(1, 4, 8, 8)), False, counting_runtime())
    with pytest.raises(RelayError, match=r"image: the autoencoder of sd15 .*NaN or infinite"):
        coding.encode(model, torch.rand(1, 64, 64, 3), 0, counting_runtime())


def test_a_latent_far_out_of_range_makes_nothing() -> None:
    with pytest.raises(RelayError, match=r"latent: .*out of range"):
        coding.decode(load("sd15"), Latents(torch.full((1, 4, 8, 8), 3e38)), False, counting_runtime())


def test_a_broken_latent_does_not_make_its_autoencoder_one_that_overflows() -> None:
    model, _ = with_own("sd15", "vae", torch.float16)
    with pytest.raises(RelayError, match=r"latent: .*NaN or infinite"):
        coding.decode(model, Latents(torch.full((1, 4, 8, 8), 3e38)), False, counting_runtime())
    assert autoencoder_of(model).decoding_dtype == torch.float16


def test_a_black_picture_is_given_and_named() -> None:
    model, vae = with_own("sd15", "vae", torch.float32)
    vae.decoder.conv_out.bias.data.fill_(-50.0)
    runtime = counting_runtime()
    assert not coding.decode(model, Latents(torch.randn(1, 4, 8, 8)), False, runtime).any()
    assert "Every pixel is black" in runtime.monitor.said[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_weights_that_are_no_numbers_are_the_file_s_fault(dtype: torch.dtype) -> None:
    half = dtype == torch.float16
    advice = (
        "so its file is damaged or its values are too large for float16: load it in float32"
        if half
        else "so its file is damaged: download"
    )
    model, unet = with_own("sd15", "unet", dtype)
    prompt = encode(model, "a cat")
    unet.conv_out.bias.data[0] = float("nan")
    with pytest.raises(RelayError, match=rf"Its unet has NaN or infinite weights \(conv_out.bias\), {advice}"):
        text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 2, 4.0, 1), counting_runtime())
    model, encoder = with_own("sd15", "text_encoder", dtype)
    next(iter(encoder.parameters())).data[:] = float("inf")
    with pytest.raises(
        RelayError, match=rf"^prompt: sd15 encoded it to NaN .*Its text_encoder has NaN or infinite weights .*{advice}"
    ):
        encode(model, "a cat")


@pytest.mark.parametrize("name", ["sd15", "sdxl_base"])
def test_a_denoiser_that_paints_no_numbers_makes_nothing(name: str) -> None:
    model, unet = with_own(name, "unet", torch.float32)
    unet.conv_out.bias.data[0] = 3e38
    unet.conv_out.weight.data *= 1e38
    with pytest.raises(RelayError, match=rf"model: {name} painted NaN or infinite values in float32"):
        text_to_image(model, encode(model, "a cat"), TextToImageSettings(64, 64, 1, 2, 4.0, 1), counting_runtime())
