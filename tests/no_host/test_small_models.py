"""Checks the small models that the other tests rely on: real classes load them, and their pictures are meaningful."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusionPipeline
from transformers import CLIPTokenizer

from reference import scripts, upscale_scripts
from relay_dev.hub_cache import HUB_IDS, WITH_FP16_FILES
from small_models.finetunes import save_weights
from small_models.native_checkpoint import NATIVE_NAME, original_weights

PROMPT = "a red cat in the jungle"


def assert_picture(pictures: np.ndarray, height: int = 64, width: int = 64) -> None:
    assert pictures.shape == (1, height, width, 3)
    assert np.isfinite(pictures).all()
    assert pictures.std() > 0.1
    assert np.mean((pictures <= 0) | (pictures >= 1)) < 0.3


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


@pytest.mark.parametrize("name", ["sd15", "comic", "pixel", "sd15_half"])
def test_sd15(models, name):
    picture = scripts.sd15_text_to_image(models.named[name], PROMPT, steps=2)
    assert_picture(picture)
    assert difference(picture, scripts.sd15_text_to_image(models.named[name], "a blue dog", steps=2)) > 0.01


def test_sd15_image_to_image_is_not_square(models):
    picture = scripts.soft_picture(96, 64)
    assert_picture(scripts.sd15_image_to_image(models.named["sd15"], picture, PROMPT, steps=2), 64, 96)


def test_fine_tunes_differ(models):
    pictures = [scripts.sd15_text_to_image(models.named[name], PROMPT, steps=2) for name in ("sd15", "comic", "pixel")]
    assert difference(pictures[0], pictures[1]) > 0.01
    assert difference(pictures[1], pictures[2]) > 0.01


def test_latent_chain(models):
    chain = [models.named[name] for name in ("sd15", "comic", "pixel")]
    assert_picture(scripts.sd15_latent_chain(chain, scripts.soft_picture(), [PROMPT] * 3, seeds=[1, 2, 3], steps=2))


def test_sdxl(models):
    base, refiner = models.named["sdxl_base"], models.named["sdxl_refiner"]
    picture = scripts.sdxl_text_to_image(base, PROMPT, steps=2)
    assert_picture(picture)
    zeros, empty = (scripts.sdxl_text_to_image(base, PROMPT, negative, steps=2) for negative in (None, "a blue dog"))
    assert difference(zeros, empty) > 0.01
    assert_picture(scripts.sdxl_base_and_refiner(base, refiner, PROMPT, steps=5))


def test_sdxl_refiner(models):
    refiner, picture = models.named["sdxl_refiner"], scripts.soft_picture()
    assert json.loads((refiner / "model_index.json").read_text())["text_encoder"] == [None, None]
    low, high = (
        scripts.sdxl_image_to_image(refiner, picture, PROMPT, steps=4, strength=0.5, aesthetic_score=score)
        for score in (3.0, 9.0)
    )
    assert_picture(low)
    assert difference(low, high) > 0.001


def test_kandinsky(models):
    prior, decoder = models.named["kandinsky_prior"], models.named["kandinsky_decoder"]
    embeds = scripts.kandinsky_prior(prior, PROMPT, steps=2)
    assert embeds.image_embeds.std() > 0.1
    assert (embeds.image_embeds - scripts.kandinsky_prior(prior, "a blue dog", steps=2).image_embeds).abs().max() > 0.01
    assert_picture(scripts.kandinsky_text_to_image(decoder, embeds, width=128, height=64, steps=2), 64, 128)


def test_kandinsky_image_to_image_has_the_size_that_was_asked_for(models):
    embeds = scripts.kandinsky_prior(models.named["kandinsky_prior"], PROMPT, steps=2)
    picture = scripts.soft_picture(128, 64)
    result = scripts.kandinsky_image_to_image(
        models.named["kandinsky_decoder"], picture, embeds, width=128, height=64, steps=4, strength=0.5
    )
    assert_picture(result, 64, 128)


def test_x2_upscaler(models):
    folder, picture = models.named["x2_upscaler"], scripts.soft_picture()
    upscaled = upscale_scripts.latent_upscale(folder, picture, PROMPT, guidance_scale=5.0, steps=3)
    assert_picture(upscaled, 128, 128)
    for changed in (
        upscale_scripts.latent_upscale(folder, picture, "a blue dog", guidance_scale=5.0, steps=3),
        upscale_scripts.latent_upscale(folder, scripts.soft_picture(seed=5), PROMPT, guidance_scale=5.0, steps=3),
    ):
        assert difference(upscaled, changed) > 0.01


def test_x4_upscaler(models):
    folder, picture = models.named["x4_upscaler"], scripts.soft_picture(32, 24)
    upscaled = upscale_scripts.super_resolution(folder, picture, PROMPT, steps=3)
    assert_picture(upscaled, 96, 128)
    for changed in (
        upscale_scripts.super_resolution(folder, picture, "a blue dog", steps=3),
        upscale_scripts.super_resolution(folder, scripts.soft_picture(32, 24, 5), PROMPT, steps=3),
        upscale_scripts.super_resolution(folder, picture, PROMPT, steps=3, noise_level=200),
    ):
        assert difference(upscaled, changed) > 0.01


def test_vae_relations(models):
    """The fine-tunes' VAEs compared with sd15's: the same file, another decoder, another latent space."""
    picture = torch.rand(1, 3, 64, 64, generator=scripts.generator(11)) * 2 - 1

    @torch.no_grad()
    def coded(folder):
        vae = AutoencoderKL.from_pretrained(folder)
        latents = vae.encode(picture).latent_dist.mode()
        return latents, vae.decode(latents).sample

    def apart(one, other):
        return float((one - other).norm() / other.norm())

    latents, decoded = coded(models.named["sd15"] / "vae")
    assert 1 < latents.std() * 0.18215 * 4 < 16
    file = "vae/diffusion_pytorch_model.safetensors"
    assert (models.named["comic"] / file).read_bytes() == (models.named["sd15"] / file).read_bytes()
    other_latents, other_decoded = coded(models.named["sd15_vae_decoder"] / "vae")
    assert torch.equal(other_latents, latents)
    assert apart(other_decoded, decoded) > 0.3
    assert 0.1 < apart(coded(models.named["sd15_vae_moved"] / "vae")[0], latents) < 1
    assert apart(coded(models.named["sdxl_base"] / "vae")[0], latents) > 0.5
    x4_latents, _ = coded(models.named["x4_vae"])
    assert x4_latents.shape == (1, 4, 16, 16)
    base, refiner = (models.named[name] / file for name in ("sdxl_base", "sdxl_refiner"))
    assert base.read_bytes() == refiner.read_bytes()


def test_pickles_and_variants_have_the_files_of_their_kind(models):
    def weights(name):
        return {path.name for path in models.named[name].rglob("*") if path.suffix in {".bin", ".safetensors"}}

    assert weights("sd15_pickle") == {"pytorch_model.bin", "diffusion_pytorch_model.bin"}
    assert weights("sd15_fp16") == {"model.fp16.safetensors", "diffusion_pytorch_model.fp16.safetensors"}
    assert weights("sd15_half") == weights("sd15") == {"model.safetensors", "diffusion_pytorch_model.safetensors"}


def test_tokenizer_knows_words_bytes_and_limits(models):
    tokenizer = CLIPTokenizer.from_pretrained(models.named["sd15"] / "tokenizer")
    assert tokenizer.model_max_length == 77
    assert tokenizer.tokenize("a red++ cat") == ["a</w>", "red</w>", "+", "+</w>", "cat</w>"]
    assert tokenizer.decode(tokenizer("xylophone 漢 é!").input_ids, skip_special_tokens=True) == "xylophone 漢 é !"
    ids = tokenizer("cat", padding="max_length").input_ids
    assert len(ids) == 77
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    second = CLIPTokenizer.from_pretrained(models.named["sdxl_base"] / "tokenizer_2")
    assert (second.pad_token, second.pad_token_id) == ("!", 0)


def test_hub_cache_is_found_offline(models):
    script = """
import sys
from diffusers import AutoPipelineForImage2Image, DiffusionPipeline
for line in sys.argv[1:]:
    repo_id, _, variant = line.partition("@")
    DiffusionPipeline.from_pretrained(repo_id, variant=variant or None, use_safetensors=True)
guide = AutoPipelineForImage2Image.from_pretrained("kandinsky-community/kandinsky-2-2-decoder", use_safetensors=True)
assert guide.prior_prior is not None
print("all found")
"""
    wanted = [*HUB_IDS, *(f"{repo_id}@fp16" for repo_id in HUB_IDS if repo_id in WITH_FP16_FILES)]
    environment = {**os.environ, **models.environment()}
    command = [sys.executable, "-c", script, *wanted]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "all found" in done.stdout, done.stderr


def test_original_keys_of_a_deep_unet(models, tmp_path):
    """The small UNet has two levels, with and without attention: diffusers' own conversion of the keys restores the model."""
    folder = models.named["sd15"]
    save_weights(original_weights(folder), tmp_path / "model.safetensors")
    assert_same_weights(folder, tmp_path / "model.safetensors")


def test_native_checkpoint_holds_the_weights_of_its_folder(models):
    checkpoint = models.models / "checkpoints" / f"{NATIVE_NAME}.safetensors"
    assert_same_weights(models.models / "diffusers" / NATIVE_NAME, checkpoint)


def assert_same_weights(folder, checkpoint):
    one = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float16)
    other = StableDiffusionPipeline.from_single_file(str(checkpoint), config=str(folder), torch_dtype=torch.float16)
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_write_like_host_cuts_off():
    assert scripts.write_like_host(np.array([0.0, 0.999, 1.0, 1.5, -0.5])).tolist() == [0, 254, 255, 255, 0]
