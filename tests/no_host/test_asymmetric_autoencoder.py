"""A model folder whose VAE is AsymmetricAutoencoderKL: the script's numbers; an inpainting run says what its decoder does not get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from reference.scripts import read_like_host, soft_picture
from support.other_vaes import folder_with_vae, image_to_image_as_script, inpainting_difference
from support.without_host import counting_runtime

pytestmark = pytest.mark.usefixtures("inference_mode")
LEVELS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small SD1.5 folder with an encoder of 16 and a decoder of 32 channels at its widest level."""
    from diffusers import AsymmetricAutoencoderKL

    def make_vae() -> AsymmetricAutoencoderKL:
        return AsymmetricAutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * LEVELS,
            down_block_out_channels=(8, 8, 16, 16),
            up_block_types=("UpDecoderBlock2D",) * LEVELS,
            up_block_out_channels=(16, 16, 32, 32),
            layers_per_up_block=2,
            norm_num_groups=8,
        )

    return folder_with_vae("sd15", tmp_path_factory.mktemp("asymmetric") / "sd15", make_vae, 9)


@pytest.fixture(scope="module")
def model(folder: Path) -> PipelineComponents:
    return load_folder(folder, dtype=torch.float32, source="asymmetric", monitor=SilentMonitor())


def test_image_to_image_is_the_script(model: PipelineComponents, folder: Path) -> None:
    runtime = counting_runtime()
    latent, ours, script = image_to_image_as_script(model, folder, runtime)
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
    from diffusers import DDIMScheduler

    runtime = counting_runtime()
    assert inpainting_difference(model, folder, DDIMScheduler, 0.6, runtime) <= 1e-4
    (said,) = runtime.monitor.said
    assert said.startswith(
        "The VAE of asymmetric can also read the picture and the mask when it decodes. Decode Latent"
    )
