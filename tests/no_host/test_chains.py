"""Latents from one model to the next: nothing is decoded if both share a latent space, and the numbers match a script's."""

from __future__ import annotations

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.latents.autoencoder import Autoencoder, autoencoder_of
from diffusers_relay.pipelines.latents.conversion import convert
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.latent_space import TAG_KEY, from_host
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference import scripts
from relay_dev.model_folders import SmallModels
from support.kandinsky import kandinsky_prompt
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
SETTINGS = {"strength": 0.6, "steps": 5, "guidance_scale": 7.5}
PROMPTS = ("a red cat", "a red cat, comic", "a red cat, pixels")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_three_models_of_one_space_in_latents(
    models: SmallModels, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("sd15", "comic", "pixel")
    picture = scripts.soft_picture(96, 64)  # not the probe's size
    passes = counted_vae_passes(monkeypatch)
    runtime = counting_runtime()
    latent = None
    for seed, (name, prompt) in enumerate(zip(names, PROMPTS)):
        model = load(name, dtype)
        image = scripts.read_like_host(picture) if latent is None else None
        settings = ImageToImageSettings(seed=seed, **SETTINGS)
        latent = image_to_image(model, encode(model, prompt), settings, runtime, image=image, latent=latent)
        assert latent.samples.dtype == torch.float32
    assert latent is not None
    assert passes == [("encode", (1, 3, 64, 96))], (
        "the first picture is encoded, and nothing else is encoded or decoded"
    )
    folders = [models.named[name] for name in names]
    script = scripts.sd15_latent_chain(
        folders, picture, PROMPTS, seeds=(0, 1, 2), output_type="latent", dtype=dtype, **SETTINGS
    )
    ours = autoencoder_of(load("pixel", dtype)).to_model_scale(latent.samples)
    assert relative(ours, script) <= 1e-5
    assert runtime.monitor.said == []


def test_base_to_refiner_with_the_noise_left_in(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    base, refiner = load("sdxl_base"), load("sdxl_refiner")
    runtime = counting_runtime()
    passes = counted_vae_passes(monkeypatch)
    first = text_to_image(
        base, encode(base, PROMPTS[0]), TextToImageSettings(64, 64, 1, 10, 5.0, 3, denoising_end=0.8), runtime
    )
    assert first.noise_left == 0.8
    second = image_to_image(
        refiner,
        encode(refiner, PROMPTS[0]),
        ImageToImageSettings(0.3, 10, 5.0, 4),
        runtime,
        latent=from_host(first.to_host()),
    )
    assert second.noise_left is None
    assert passes == []
    named = models.named
    script = scripts.sdxl_base_and_refiner(
        named["sdxl_base"], named["sdxl_refiner"], PROMPTS[0], split=0.8, steps=10, seeds=(3, 4), output_type="latent"
    )
    assert relative(autoencoder_of(refiner).to_model_scale(second.samples), script) <= 1e-5
    assert len([s for s in runtime.monitor.steps if s[1] == 8]) == 8
    assert len([s for s in runtime.monitor.steps if s[1] == 2]) == 2


def test_a_changed_latent_has_no_noise_left_and_the_user_is_told() -> None:
    base, refiner = load("sdxl_base"), load("sdxl_refiner")
    runtime = counting_runtime()
    settings = TextToImageSettings(64, 64, 1, 5, 5.0, 3, denoising_end=0.8)
    latent = text_to_image(base, encode(base, "a"), settings, runtime).to_host()
    latent = {**latent, "samples": latent["samples"] + 1e-6}  # as a native sampler does: it copies the dict
    read = from_host(latent)
    assert read.noise_is_void
    assert read.noise_left is None
    image_to_image(refiner, encode(refiner, "a"), ImageToImageSettings(0.5, 4, 5.0, 4), runtime, latent=read)
    assert ["changed after a run" in line for line in runtime.monitor.said] == [True]


def test_sd15_to_kandinsky_is_one_decode_and_one_encode_equal_to_doing_it_by_hand() -> None:
    sd15, decoder = load("sd15"), load("kandinsky_decoder")
    prompt = kandinsky_prompt()
    made = text_to_image(sd15, encode(sd15, PROMPTS[0]), TextToImageSettings(128, 64, 1, 4, 7.5, 3), counting_runtime())
    settings = ImageToImageSettings(0.5, 6, 4.0, 9)
    runtime = counting_runtime()
    chained = image_to_image(decoder, prompt, settings, runtime, latent=from_host(made.to_host()))
    assert runtime.policy.stages[Stage.VAE] == 2
    assert len(runtime.monitor.said) == 1
    assert "sd15" in runtime.monitor.said[0]
    picture = decode(sd15, made, tiled=False, runtime=counting_runtime())
    by_hand = image_to_image(decoder, prompt, settings, counting_runtime(), image=picture)
    assert torch.equal(chained.samples, by_hand.samples)


def test_conversion_encodes_to_the_mode_and_leaves_the_same_space_alone() -> None:
    sd15, comic, refiner = load("sd15"), load("comic"), load("sdxl_refiner")
    made = text_to_image(sd15, encode(sd15, "a"), TextToImageSettings(64, 64, 2, 3, 7.5, 3), counting_runtime())
    assert convert(made, autoencoder_of(comic), counting_runtime()).samples is made.samples
    runtime = counting_runtime()
    converted = convert(made, autoencoder_of(refiner), runtime)
    assert converted.space is not None
    assert converted.space.module is refiner["vae"]
    picture = decode(sd15, made, tiled=False, runtime=runtime)
    pixels = picture.movedim(-1, 1) * 2 - 1
    mode = torch.cat([refiner["vae"].encode(one).latent_dist.mode() for one in pixels.split(1)])
    assert torch.allclose(converted.samples, mode, atol=1e-5)


def test_a_latent_that_still_holds_noise_is_not_converted() -> None:
    base, sd15 = load("sdxl_base"), load("sd15")
    settings = TextToImageSettings(64, 64, 1, 5, 5.0, 3, denoising_end=0.8)
    noisy = text_to_image(base, encode(base, "a"), settings, counting_runtime())
    with pytest.raises(RelayError, match=r"sdxl_base.*still holds noise.*0\.8"):
        convert(noisy, autoencoder_of(sd15), counting_runtime())
    with pytest.raises(RelayError, match="still holds noise"):
        image_to_image(sd15, encode(sd15, "a"), ImageToImageSettings(0.5, 4, 5.0, 4), counting_runtime(), latent=noisy)
    runtime = counting_runtime()
    decode(base, noisy, tiled=False, runtime=runtime)
    assert ["shows the noise" in line for line in runtime.monitor.said] == [True]


def test_an_untagged_latent_is_taken_to_be_the_model_s_own() -> None:
    sd15 = load("sd15")
    made = text_to_image(
        sd15, encode(sd15, "a"), TextToImageSettings(64, 64, 1, 3, 7.5, 3), counting_runtime()
    ).to_host()
    tagged = decode(sd15, from_host(made), tiled=False, runtime=counting_runtime())
    del made[TAG_KEY]
    runtime = counting_runtime()
    assert torch.equal(decode(sd15, from_host(made), tiled=False, runtime=runtime), tagged)
    assert runtime.monitor.said == []


def test_decode_uses_the_latent_s_own_decoder_for_another_space() -> None:
    sd15, refiner = load("sd15"), load("sdxl_refiner")
    made = text_to_image(sd15, encode(sd15, "a"), TextToImageSettings(64, 64, 1, 3, 7.5, 3), counting_runtime())
    runtime = counting_runtime()
    assert torch.equal(
        decode(refiner, made, tiled=False, runtime=runtime), decode(sd15, made, tiled=False, runtime=counting_runtime())
    )
    assert ["autoencoder of sd15" in line for line in runtime.monitor.said] == [True]


def test_the_guide_s_vae_round_trip_keeps_half_precision_bit_for_bit() -> None:
    """out.float() / factor and back: a bfloat16 or float16 model's latent loses no bit on the wire."""
    autoencoder = autoencoder_of(load("sd15"))
    for dtype in (torch.bfloat16, torch.float16):
        out = (torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(8)) * 3).to(dtype)
        assert torch.equal(autoencoder.to_model_scale(autoencoder.to_raw(out)).to(dtype), out)


def counted_vae_passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Records every later encode and decode with its input shape, except for the probes' 64x64 pictures."""
    passes: list[tuple[str, tuple[int, ...]]] = []
    for name in ("encode", "decode"):
        original = getattr(Autoencoder, name)

        def counted(self, values, *others, _name=name, _original=original, **options):
            if tuple(values.shape) != (1, 3, 64, 64):
                passes.append((_name, tuple(values.shape)))
            return _original(self, values, *others, **options)

        monkeypatch.setattr(Autoencoder, name, counted)
    return passes


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    ours, theirs = ours.float(), theirs.float()
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())
