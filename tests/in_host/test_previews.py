"""The inputs and outputs of the host's previewers: its small autoencoder (TAESD) and its colour factors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import encode
from reference.scripts import read_like_host, soft_picture
from small_models.weights import random_module
from support.without_host import counting_runtime, load
from tiny_world.drawing import draw
from tiny_world.scene import COLORS, one_thing
from tiny_world.store import Store

TAESD_FILES = {"sd15": "taesd_decoder", "sdxl_base": "taesdxl_decoder", "sdxl_refiner": "taesdxl_decoder"}


@pytest.fixture
def approximations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's folder vae_approx, with TAESD previews turned on."""
    import folder_paths
    from comfy.cli_args import LatentPreviewMethod, args

    paths = ([str(tmp_path)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae_approx", paths)
    folder_paths.filename_list_cache.pop("vae_approx", None)
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.TAESD)
    return tmp_path


@pytest.fixture
def shown() -> Iterator[list[Any]]:
    """The preview pictures for the page."""
    import comfy.utils

    before, pictures = comfy.utils.PROGRESS_BAR_HOOK, []
    comfy.utils.set_progress_bar_global_hook(lambda done, total, preview, node_id=None: pictures.append(preview))
    yield pictures
    comfy.utils.set_progress_bar_global_hook(before)


def tiny_autoencoder(folder: Path, name: str) -> Any:
    """diffusers' own, and its decoder as a file for the host, which counts the first clamp as a layer."""
    from diffusers import AutoencoderTiny

    tiny = random_module(AutoencoderTiny, 5)
    with torch.no_grad():  # pictures in the middle of the range
        last = tiny.decoder.layers[-1]
        picture = (tiny.decode(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))).sample + 1) / 2
        factor = 0.2 / picture.std()
        last.weight.mul_(factor)
        last.bias.copy_((last.bias - picture.mean()) * factor + 0.5)
    weights = {}
    for key, value in tiny.decoder.layers.state_dict().items():
        layer, _, rest = key.partition(".")
        weights[f"{int(layer) + 1}.{rest}"] = value.contiguous()
    save_file(weights, folder / f"{name}.safetensors")
    return tiny


def preview(name: str, shown: list[Any]) -> tuple[np.ndarray, torch.Tensor]:
    """(preview of a clean latent, the latent in model scale)"""
    from diffusers_relay.nodes import comfy_host
    from diffusers_relay.nodes.loaders import RelayLoadModel

    model = load(name)
    latents = encode(model, read_like_host(soft_picture()), 0, counting_runtime()).samples
    latents = autoencoder_of(model).to_model_scale(latents)
    monitor = comfy_host.runtime_for(RelayLoadModel, model).monitor
    assert monitor.expect_latents() is True
    monitor.progress(1, 2, latents)
    return np.array(shown[-1][1]), latents


@pytest.mark.parametrize("name", TAESD_FILES)
def test_the_small_autoencoder_gets_latents_in_its_scale(name: str, approximations: Path, shown: list[Any]) -> None:
    tiny = tiny_autoencoder(approximations, TAESD_FILES[name])
    pixels, latents = preview(name, shown)
    with torch.no_grad():
        script = tiny.decode(latents).sample[0].movedim(0, -1)  # a script passes latents in model scale
    expected = ((script + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8).numpy()
    assert pixels.shape == (64, 64, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    assert expected.std() > 10


@pytest.mark.parametrize("name", ["sd15", "kandinsky_decoder"])
def test_without_its_file_there_are_colours(name: str, approximations: Path, shown: list[Any]) -> None:
    """Kandinsky has no small autoencoder, and Stable Diffusion's file isn't for it."""
    if name == "kandinsky_decoder":
        tiny_autoencoder(approximations, "taesd_decoder")
    pixels, _ = preview(name, shown)
    assert pixels.shape == (8, 8, 3)


SQUARES = np.stack([draw(one_thing("square", *pair), 64) for pair in itertools.permutations(COLORS, 2)])


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """1 if they are the same up to scale, 0 if they have nothing in common."""
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


@pytest.mark.parametrize(("vae", "name"), [("vae_sd15", "SD15"), ("vae_sdxl", "SDXL")])
def test_a_preview_of_a_trained_stand_in_has_the_picture_s_colours(vae: str, name: str) -> None:
    """The colours are pale: the host's factors are for the published models."""
    import comfy.latent_formats
    from latent_preview import Latent2RGBPreviewer

    latent_format = getattr(comfy.latent_formats, name)()
    previewer = Latent2RGBPreviewer(latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias)
    autoencoder = Store().load(vae)
    squares = torch.from_numpy(SQUARES).float().movedim(-1, 1)
    with torch.no_grad():
        latents = autoencoder.encode(squares * 2 - 1).latent_dist.mean * autoencoder.config.scaling_factor
    shown = np.stack([np.array(previewer.decode_latent_to_preview(one[None])) / 255 for one in latents])
    given = torch.nn.functional.avg_pool2d(squares, 8).movedim(1, -1).numpy()
    brightness = [pictures.mean(-1, keepdims=True) for pictures in (shown, given)]
    assert similarity(brightness[0] - brightness[0].mean(), brightness[1] - brightness[1].mean()) > 0.9  # .98, SDXL .97
    assert similarity(shown - brightness[0], given - brightness[1]) > 0.75  # .92, SDXL .81
