"""Whether two latents are in the same space, decided by what the encoders do."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.latents.autoencoder import Autoencoder, autoencoder_of
from diffusers_relay.pipelines.latents.latent_space import TAG_KEY, Latents, fingerprint, from_host
from diffusers_relay.pipelines.latents.other_autoencoder import with_vae_of
from diffusers_relay.pipelines.latents.probe import SAME_SPACE_TOLERANCE
from relay_dev.model_folders import SmallModels
from support.without_host import counting_runtime, load

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.mark.parametrize("name", ["comic", "pixel", "sd15_vae_decoder", "sd15_half", "sd15_fp16"])
def test_fine_tunes_other_decoders_and_copies_share_the_space(name: str) -> None:
    sd15, other = autoencoder_of(load("sd15")), autoencoder_of(load(name))
    assert other.module is not sd15.module
    assert sd15.is_same_space(other, counting_runtime().policy)
    assert other.is_same_space(sd15, counting_runtime().policy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_copies_share_the_space(dtype: torch.dtype) -> None:
    assert autoencoder_of(load("sd15")).is_same_space(autoencoder_of(load("sd15", dtype)), counting_runtime().policy)


@pytest.mark.parametrize("name", ["sdxl_base", "sdxl_refiner", "kandinsky_decoder", "sd15_vae_moved"])
def test_other_families_and_moved_weights_do_not(name: str) -> None:
    sd15, other = autoencoder_of(load("sd15")), autoencoder_of(load(name))
    assert not sd15.is_same_space(other, counting_runtime().policy)
    assert not other.is_same_space(sd15, counting_runtime().policy)


def test_x4_s_autoencoder_does_not(models: SmallModels) -> None:
    x4 = Autoencoder(AutoencoderKL.from_pretrained(models.named["x4_vae"], torch_dtype=torch.float32), "x4", False)
    assert x4.factor == 4
    assert not autoencoder_of(load("sd15")).is_same_space(x4, counting_runtime().policy)


def test_base_and_refiner_share_theirs() -> None:
    assert autoencoder_of(load("sdxl_base")).is_same_space(
        autoencoder_of(load("sdxl_refiner")), counting_runtime().policy
    )


def test_the_probe_is_taken_once_and_kept_with_the_vae() -> None:
    module = copy.deepcopy(load("sd15")["vae"])
    other = copy.deepcopy(module)
    runtime = counting_runtime()
    ours, theirs = Autoencoder(module, "a", False), Autoencoder(other, "b", False)
    for _ in range(3):
        assert ours.is_same_space(theirs, runtime.policy)
    assert sum(runtime.policy.stages.values()) == 2


def test_the_probe_is_the_same_whoever_asks_first() -> None:
    """A model that encodes in tiles may be first, but it must not change the space that the others get."""
    made = []
    for tiling in (True, False):
        module = copy.deepcopy(load("sd15")["vae"])
        module.tile_sample_min_size, module.tile_latent_min_size = 32, 4  # as for a config without sample_size
        first, second = Autoencoder(module, "a", False, tiling), Autoencoder(module, "a", False)
        runtime = counting_runtime()
        first.rgb_factors(runtime.policy)
        made.append(second.rgb_factors(runtime.policy))
    assert torch.equal(made[0][0], made[1][0])
    assert torch.equal(made[0][1], made[1][1])


def test_the_tolerance_is_where_the_contract_has_it() -> None:
    """Adds noise of known size to the encoder's output: just below the tolerance is the same space, just above is not."""

    class Shifted(torch.nn.Module):
        def __init__(self, vae: torch.nn.Module, amount: float) -> None:
            super().__init__()
            self.vae, self.config, self.dtype, self.amount = vae, vae.config, vae.dtype, amount

        def encode(self, pixels: torch.Tensor):
            encoded = self.vae.encode(pixels)
            mean, logvar = encoded.latent_dist.parameters.chunk(2, dim=1)
            encoded.latent_dist = DiagonalGaussianDistribution(torch.cat([mean * (1 + self.amount), logvar], dim=1))
            return encoded

    vae = load("sd15")["vae"]
    sd15 = autoencoder_of(load("sd15"))
    for factor, same in ((0.9, True), (1.1, False)):
        shifted = Autoencoder(Shifted(vae, SAME_SPACE_TOLERANCE * factor), "shifted", False)
        assert sd15.is_same_space(shifted, counting_runtime().policy) is same


def test_force_upcast_gives_the_vae_back_as_it_was() -> None:
    model = load("sdxl_base", torch.float16)
    vae = model["vae"]
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    autoencoder = autoencoder_of(model)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    seen = []
    handle = vae.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    latents = autoencoder.encode(pixels, counting_runtime().policy)
    handle.remove()
    assert seen == [torch.float32], "force_upcast means that the encoder runs in float32"
    assert latents.dtype == torch.float16
    with pytest.raises(RelayError):
        autoencoder.decode(torch.zeros(1, 16, 8, 8), counting_runtime().policy)
    autoencoder.decode(latents.float(), counting_runtime().policy)
    assert vae.dtype == torch.float16
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_tiling_is_given_back_and_refused_where_there_is_none() -> None:
    sd15, kandinsky = autoencoder_of(load("sd15")), autoencoder_of(load("kandinsky_decoder"))
    raw = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)) * 5
    sd15.decode(raw, counting_runtime().policy, tiled=True)
    assert sd15.module.use_tiling is False
    with pytest.raises(RelayError, match="can't decode in tiles"):
        kandinsky.decode(raw, counting_runtime().policy, tiled=True)


def test_a_latent_survives_the_host_s_dict() -> None:
    space = autoencoder_of(load("sd15"))
    samples = torch.randn(2, 4, 8, 8)
    mask = torch.ones(1, 64, 64)
    latent = Latents(samples, noise_mask=mask, batch_index=(3, 5), others={"other_pack": "kept"})
    read = from_host(latent.with_samples(samples, space, noise_left=0.8).to_host())
    assert torch.equal(read.samples, samples)
    assert read.noise_mask is mask
    assert read.batch_index == (3, 5)
    assert read.others == {"other_pack": "kept"}
    assert read.noise_left == 0.8
    assert read.space is space


def test_the_tag_holds_the_autoencoder_and_nothing_else_of_the_model() -> None:
    tag = (
        Latents(torch.zeros(1, 4, 8, 8))
        .with_samples(torch.zeros(1, 4, 8, 8), autoencoder_of(load("sd15")))
        .to_host()[TAG_KEY]
    )
    assert tag.space.module is load("sd15")["vae"]
    assert not any("unet" in name or "text" in name for name in vars(tag.space))
    with pytest.raises(AttributeError):
        tag.noise = None


def test_the_fingerprint_sees_every_value_and_the_shape() -> None:
    samples = torch.randn(1, 4, 8, 8)
    changed = samples.clone()
    changed[0, 3, 7, 7] += 1e-6
    assert fingerprint(samples) == fingerprint(samples.clone(memory_format=torch.channels_last))
    assert fingerprint(samples) != fingerprint(changed)
    assert fingerprint(samples) != fingerprint(samples.reshape(1, 4, 4, 16))


@pytest.mark.parametrize(
    ("latent", "text"),
    [
        ({}, "expected samples"),
        ({"samples": torch.zeros(1, 4, 3, 8, 8)}, "Video"),
        ({"samples": torch.zeros(0, 4, 8, 8)}, "empty"),
        ({"samples": torch.full((1, 4, 8, 8), float("nan"))}, "NaN"),
        ({"samples": torch.zeros(2, 4, 8, 8), "batch_index": [1]}, "batch_index"),
    ],
)
def test_what_is_no_latent_is_refused(latent: dict, text: str) -> None:
    with pytest.raises(RelayError, match=text):
        from_host(latent)


def test_a_vae_of_another_kind_is_not_set() -> None:
    swapped = with_vae_of(load("sd15"), load("sd15_vae_decoder"))
    assert swapped["vae"] is load("sd15_vae_decoder")["vae"]
    assert load("sd15")["vae"] is not swapped["vae"], "the input model is not changed"
    for other in ("sdxl_base", "kandinsky_decoder"):
        with pytest.raises(RelayError, match="vae_from"):
            with_vae_of(load("sd15"), load(other))
    with pytest.raises(RelayError, match="no autoencoder"):
        with_vae_of(load("sd15"), load("kandinsky_prior"))
