"""A model folder whose VAE is AsymmetricAutoencoderKL: the script's numbers; an inpainting run says what its decoder does not get."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, image_to_image
from reference import inpaint_scripts
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import small_models
from small_models.weights import random_module
from support.without_host import counting_runtime, encode

pytestmark = pytest.mark.usefixtures("inference_mode")
SIZE, BOX = (96, 64), (24, 16, 64, 48)
LATENT_BOX = (slice(None), slice(None), slice(2, 6), slice(3, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small SD1.5 folder with an encoder of 16 and a decoder of 32 channels at its widest level."""
    from diffusers import AsymmetricAutoencoderKL

    folder = tmp_path_factory.mktemp("asymmetric") / "sd15"
    shutil.copytree(small_models().named["sd15"], folder)
    shutil.rmtree(folder / "vae")
    levels = 4
    vae = random_module(
        lambda: AsymmetricAutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            down_block_out_channels=(8, 8, 16, 16),
            up_block_types=("UpDecoderBlock2D",) * levels,
            up_block_out_channels=(16, 16, 32, 32),
            layers_per_up_block=2,
            norm_num_groups=8,
        ),
        9,
    )
    vae.save_pretrained(folder / "vae")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["vae"] = ["diffusers", "AsymmetricAutoencoderKL"]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> PipelineComponents:
    return load_folder(folder, dtype=torch.float32, source="asymmetric", monitor=SilentMonitor())


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
    assert ours.shape == script.shape
    assert (ours - script).abs().max() < 1e-5
    assert runtime.monitor.said == []
    with pytest.raises(RelayError, match=r"^tiled: the autoencoder of asymmetric .*can't decode in tiles"):
        decode(model, latent, True, runtime)


def test_a_picture_is_sampled_from_its_distribution(model: PipelineComponents) -> None:
    picture = read_like_host(soft_picture())
    latent = encode_image(model, picture, 5, counting_runtime())
    encoded = model["vae"].encode(picture.movedim(-1, 1) * 2 - 1).latent_dist
    assert latent.samples.shape == (1, 4, picture.shape[1] // 8, picture.shape[2] // 8)
    assert torch.allclose(latent.samples, encoded.sample(torch.Generator().manual_seed(5)), atol=1e-5)


def test_inpainting_paints_the_script_s_latents_and_says_what_its_decoder_lacks(
    model: PipelineComponents, folder: Path
) -> None:
    mask, runtime = mask_picture(*SIZE, BOX), counting_runtime()
    view = model.with_changes(scheduler=SchedulerChoice("DDIMScheduler"))
    picture, prompt = read_like_host(soft_picture(*SIZE)), encode(view, "a red cat", "dog")
    ours = inpaint(view, prompt, as_mask(mask), InpaintSettings(0.6, 5, 7.5, 7), runtime, image=picture)
    from diffusers import DDIMScheduler

    theirs = inpaint_scripts.inpaint(
        folder,
        soft_picture(*SIZE),
        mask,
        "a red cat",
        "dog",
        width=SIZE[0],
        height=SIZE[1],
        seed=7,
        strength=0.6,
        scheduler=DDIMScheduler,
        output_type="latent",
    )[LATENT_BOX]
    difference = (autoencoder_of(view).to_model_scale(ours.samples)[LATENT_BOX] - theirs).abs().max()
    assert difference <= 1e-4 * theirs.abs().max()
    (said,) = runtime.monitor.said
    assert said.startswith(
        "The VAE of asymmetric can also read the picture and the mask when it decodes. Decode Latent"
    )
