"""A space of 16 channels with a shift (Stable Diffusion 3's): its scale, the decoder's bits, conversion from and to 4 channels."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusion3Img2ImgPipeline
from safetensors.torch import save_file

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import to_host_images, to_pixels
from diffusers_relay.pipelines.denoising.masked_picture import EncodedPictures, FixedLatents
from diffusers_relay.pipelines.latents.autoencoder import Autoencoder, autoencoder_of
from diffusers_relay.pipelines.latents.conversion import convert
from diffusers_relay.pipelines.latents.encode_decode import decode, encode
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.latents.other_autoencoder import with_vae_of
from diffusers_relay.pipelines.loading.single_parts import load_vae_file
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.inputs import is_inpainting_model
from reference.scripts import read_like_host, soft_picture
from small_models.weights import random_module
from support.without_host import counting_runtime, load

pytestmark = pytest.mark.usefixtures("inference_mode")
SCALE, SHIFT = 1.5305, 0.0609
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@cache
def vae16(dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    options = {
        "block_out_channels": (16, 16, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 8,
        "latent_channels": 16,
        "scaling_factor": SCALE,
        "shift_factor": SHIFT,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    return random_module(lambda: AutoencoderKL(**options | config), 5).to(dtype)


def model16(dtype: torch.dtype = torch.float32, **config: Any) -> PipelineComponents:
    """A model of four channels whose autoencoder has sixteen: only its latents are used here."""
    return load("sd15", dtype).with_changes(modules={"vae": vae16(dtype, **config)})


def latents(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3)) * 3).to(dtype)


def test_raw_and_model_scale_are_the_config_s() -> None:
    autoencoder = Autoencoder(vae16(), "sd3", False)
    raw = torch.tensor([0.0609, 1.0609, 0.0]).view(1, 1, 1, 3).expand(1, 16, 1, 3)
    model = autoencoder.to_model_scale(raw)
    assert model[0, 0, 0].tolist() == pytest.approx([0.0, 1.5305, -0.09320745], abs=1e-6)
    assert torch.allclose(autoencoder.to_raw(model), raw, atol=1e-7)
    assert (autoencoder.factor, autoencoder.channels) == (8, 16)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_half_precision_survives_the_wire_bit_for_bit(dtype: torch.dtype) -> None:
    """Values next to 0 are finer than float32 is beside the shift: there only, up to 4e-9 is lost."""
    autoencoder = Autoencoder(vae16(dtype), "sd3", False)
    out = (torch.randn(4, 16, 64, 64, generator=torch.Generator().manual_seed(8)) * 3).to(dtype)
    back = autoencoder.to_model_scale(autoencoder.to_raw(out)).to(dtype)
    assert torch.equal(back[out.abs() > 2e-6], out[out.abs() > 2e-6])
    assert (back.float() - out.float()).abs().max() < 4e-9


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_encoded_and_decoded_are_the_pipeline_s_bits(dtype: torch.dtype) -> None:
    model, runtime = model16(dtype), counting_runtime()
    autoencoder, vae = autoencoder_of(model), model["vae"]
    painted = latents(dtype)
    theirs = to_host_images(vae.decode((painted / SCALE) + SHIFT, return_dict=False)[0])  # as the pipeline has it
    assert torch.equal(decode(model, Latents(autoencoder.to_raw(painted)), False, runtime), theirs)
    pixels = to_pixels(read_like_host(soft_picture(64, 64)), 8)
    pipeline = SimpleNamespace(vae=vae, scheduler=SimpleNamespace(scale_noise=lambda clean, *others: clean))
    theirs = StableDiffusion3Img2ImgPipeline.prepare_latents(
        pipeline, pixels, None, 1, 1, dtype, torch.device("cpu"), torch.Generator().manual_seed(7)
    )
    ours = autoencoder.encode(pixels, runtime.policy, [torch.Generator().manual_seed(7)])
    assert torch.equal(autoencoder.to_model_scale(ours), theirs)


@pytest.mark.parametrize("from_16", [False, True])
def test_conversion_is_a_decode_and_an_encode(from_16: bool) -> None:
    four, sixteen, runtime = load("sd15"), model16(), counting_runtime()
    source, target = (sixteen, four) if from_16 else (four, sixteen)
    latent = encode(source, read_like_host(soft_picture(96, 64)), 0, runtime)
    picture = source["vae"].decode(latent.samples).sample.clamp(-1, 1)
    by_hand = target["vae"].encode(picture).latent_dist.mode()
    made = convert(latent, autoencoder_of(target), runtime)
    assert made.samples.shape == (1, 4 if from_16 else 16, 8, 12)
    assert (made.samples - by_hand).abs().max() <= 1e-5 * by_hand.abs().max()
    assert len(runtime.monitor.said) == 1
    assert "converted" in runtime.monitor.said[0]


def test_copies_share_the_space() -> None:
    ours, half = Autoencoder(vae16(), "a", False), Autoencoder(vae16(torch.float16), "b", False)
    policy = counting_runtime().policy
    assert ours.is_same_space(half, policy)
    assert not ours.is_same_space(autoencoder_of(load("sd15")), policy)
    colours, offsets = ours.rgb_factors(policy)
    assert (colours.shape, offsets.shape) == ((16, 3), (3,))


@pytest.mark.parametrize(("config", "fits"), [({"shift_factor": SHIFT}, True), ({"shift_factor": 0.1159}, False)])
def test_another_vae_needs_the_same_shift(config: dict[str, float], fits: bool) -> None:
    if fits:
        assert with_vae_of(model16(), model16(torch.float32, **config))["vae"] is vae16(torch.float32, **config)
        return
    with pytest.raises(
        RelayError, match=r"scale and shift are .*1\.5305, 0\.1159\), but .*1\.5305, 0\.0609\) is needed"
    ):
        with_vae_of(model16(), model16(torch.float32, **config))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tiny_autoencoder_is_shifted_as_the_host_shifts_it(dtype: torch.dtype) -> None:
    """The host's TAESD: raw = encoder(pixels) / scale + shift."""
    widths = (16, 16, 16, 16)
    tiny = random_module(
        lambda: AutoencoderTiny(
            encoder_block_out_channels=widths, decoder_block_out_channels=widths, latent_channels=16
        ),
        7,
    ).to(dtype)
    model, runtime = load("sd15", dtype).with_changes(modules={"vae": tiny}), counting_runtime()
    model = replace(model, family=replace(model.family, host_factor=SCALE, host_shift=SHIFT))
    picture = read_like_host(soft_picture(64, 64))
    encoded = tiny.encode(to_pixels(picture, 8).to(dtype)).latents
    raw = encode(model, picture, 0, runtime).samples
    assert torch.allclose(raw, encoded.float() / SCALE + SHIFT, atol=1e-6)
    theirs = to_host_images(tiny.decode(encoded, return_dict=False)[0])
    assert (decode(model, Latents(raw), False, runtime) - theirs).abs().max() <= 1e-5


def test_the_stand_in_for_inpainting_scales_nothing() -> None:
    stand_in = EncodedPictures(vae16(), [FixedLatents(latents())])
    given = stand_in.encode(torch.zeros(1, 3, 64, 64)).latents
    assert torch.equal((given - stand_in.config.shift_factor) * stand_in.config.scaling_factor, latents())
    assert (stand_in.config.latent_channels, len(stand_in.config.block_out_channels)) == (16, 4)


@pytest.mark.parametrize(("channels", "expected"), [(16, False), (33, True), (9, False)])
def test_a_denoiser_for_inpainting_sees_two_latents_and_a_mask(channels: int, expected: bool) -> None:
    denoiser = torch.nn.Linear(1, 1)
    denoiser.config = SimpleNamespace(in_channels=channels)
    assert is_inpainting_model(model16().with_changes(modules={"unet": denoiser})) is expected


def test_a_vae_file_is_the_one_of_its_family_s_row(tmp_path: Path) -> None:
    """A family of 16 channels takes such a file by its row alone, and refuses one of 4."""
    vae16().save_config(tmp_path / "sixteen" / "vae")
    save_file(vae16().state_dict(), tmp_path / "vae.safetensors")
    save_file(load("sd15")["vae"].state_dict(), tmp_path / "four.safetensors")
    family = replace(load("sd15").family, title="Sixteen", vae_config="sixteen")
    vae = load_vae_file(tmp_path / "vae.safetensors", torch.float32, family=family, configs=tmp_path)
    assert (vae.config.latent_channels, vae.config.shift_factor) == (16, SHIFT)
    assert all(torch.equal(value, vae16().state_dict()[name]) for name, value in vae.state_dict().items())
    with pytest.raises(RelayError, match=r"not a VAE of Sixteen, whose latents have 16 channels. Its decoder takes 4"):
        load_vae_file(tmp_path / "four.safetensors", torch.float32, family=family, configs=tmp_path)
