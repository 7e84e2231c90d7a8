"""A VAE from a file equals the VAE from a folder: same latents, same pictures, and the same latent space if the encoder is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.files.registry import ComponentRegistry
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.other_autoencoder import with_vae_file, with_vae_of
from diffusers_relay.pipelines.loading.single_file import CONFIGS
from diffusers_relay.pipelines.loading.single_parts import load_vae_file
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, image_to_image
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from small_models.native_checkpoint import original_vae
from support.checkpoints import SmallCheckpoints, write_file
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode", "registry")
LAYOUTS = {"original": original_vae, "diffusers": lambda weights: weights}


def vae_file(folder: Path, path: Path, layout: str = "diffusers") -> Path:
    return write_file(path, LAYOUTS[layout](load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")))


def paint(model: PipelineComponents) -> tuple[torch.Tensor, torch.Tensor]:
    """(latents, picture) from a picture, so both the encoder and the decoder run."""
    runtime = counting_runtime()
    image = read_like_host(soft_picture())
    settings = ImageToImageSettings(0.6, 4, 5.0, 3)
    latent = image_to_image(model, encode(model, "a cat"), settings, runtime, image=image)
    return latent.samples, decode(model, latent, False, runtime)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "other", "dtype"),
    [
        ("sd15", "sd15_vae_moved", torch.float32),
        ("sd15", "sd15_vae_moved", torch.float16),
        ("sdxl_base", "sdxl_base", torch.float32),
        ("sdxl_refiner", "sdxl_base", torch.float32),
    ],
)
def test_a_file_gives_what_the_folder_gives(
    name: str,
    other: str,
    dtype: torch.dtype,
    layout: str,
    small: SmallCheckpoints,
    models: SmallModels,
    tmp_path: Path,
) -> None:
    model = load(name, dtype)
    file = vae_file(models.named[other], tmp_path / "vae.safetensors", layout)
    from_file = with_file(model, file, source="vae.safetensors", configs=small.configs)
    assert from_file["vae"] is not model["vae"]
    assert from_file["vae"].dtype == dtype
    assert from_file["unet"] is model["unet"], "the rest is shared"
    for ours, theirs in zip(paint(from_file), paint(with_vae_of(model, load(other, dtype)))):
        assert torch.equal(ours, theirs)
    if other == "sd15_vae_moved" and dtype == torch.float32:
        assert (paint(model)[0] - paint(from_file)[0]).abs().max() > 0.1, "it isn't the model's own VAE"


def with_file(model: Any, file: Path, source: str, configs: Path = CONFIGS) -> Any:
    """Sets it as Set VAE does."""
    module = load_vae_file(file, model.dtype, family=model.family, source=source, configs=configs)
    return with_vae_file(model, module, source=source)


def test_another_decoder_shares_the_space(small: SmallCheckpoints, models: SmallModels, tmp_path: Path) -> None:
    """Like ft-mse: its encoder is the model's, so a latent passes unchanged but is decoded differently."""
    model = load("sd15")
    file = vae_file(models.named["sd15_vae_decoder"], tmp_path / "vae.safetensors", "original")
    other = with_file(model, file, source="ft-mse.safetensors", configs=small.configs)
    runtime = counting_runtime()
    image = read_like_host(soft_picture())
    settings = ImageToImageSettings(0.6, 4, 5.0, 3)
    latent = image_to_image(model, encode(model, "a cat"), settings, runtime, image=image)
    passed = image_to_image(other, encode(model, "a cat"), settings, runtime, latent=latent)
    assert torch.equal(
        passed.samples, image_to_image(model, encode(model, "a cat"), settings, runtime, latent=latent).samples
    )
    assert runtime.monitor.said == []
    assert (decode(other, latent, False, runtime) - decode(model, latent, False, runtime)).abs().max() > 0.05
    moved = vae_file(models.named["sd15_vae_moved"], tmp_path / "moved.safetensors")
    elsewhere = with_file(model, moved, source="moved.safetensors", configs=small.configs)
    assert not autoencoder_of(elsewhere).is_same_space(autoencoder_of(model), runtime.policy)
    image_to_image(elsewhere, encode(model, "a cat"), settings, runtime, latent=latent)
    assert "converted" in runtime.monitor.said[-1]


def test_one_file_is_in_memory_once(
    small: SmallCheckpoints, models: SmallModels, tmp_path: Path, registry: ComponentRegistry
) -> None:
    file = vae_file(models.named["sd15"], tmp_path / "vae.safetensors")
    first = with_file(load("sd15"), file, source="vae.safetensors", configs=small.configs)
    second = with_file(load("comic"), file, source="vae.safetensors", configs=small.configs)
    assert first["vae"] is second["vae"]
    assert registry.loads == 1


def test_what_can_not_serve_is_refused(small: SmallCheckpoints, models: SmallModels, tmp_path: Path) -> None:
    file = vae_file(models.named["sd15"], tmp_path / "vae.safetensors")
    for name in ("kandinsky_decoder", "kandinsky_prior"):
        with pytest.raises(RelayError, match=r"^sub/vae.safetensors: .*can't use a VAE file"):
            with_file(load(name), file, source="sub/vae.safetensors", configs=small.configs)
    weights = load_file(file)
    wide = {**weights, "decoder.conv_in.weight": torch.zeros(32, 16, 3, 3)}
    with pytest.raises(RelayError, match=r"^flux.safetensors is not a VAE .*4 channels. Its decoder takes 16"):
        with_file(
            load("sd15"), write_file(tmp_path / "flux.safetensors", wide), source="flux.safetensors"
        )  # with the pack's own configs
    with pytest.raises(RelayError, match=r"^vae_file: sd15 can't use the autoencoder of vae.safetensors.*factor"):
        with_file(
            load("sd15").with_changes(modules={"vae": x4_vae(models)}),
            file,
            source="vae.safetensors",
            configs=small.configs,
        )


def x4_vae(models: SmallModels) -> torch.nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(models.named["x4_vae"], torch_dtype=torch.float32)
