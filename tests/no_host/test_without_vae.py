"""A checkpoint without a VAE loads; Set VAE completes it to the same model, and without one each use of it is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.denoising.optimising import with_options
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.latents.encode_decode import decode, encode
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.latents.other_autoencoder import with_vae_file, with_vae_of
from diffusers_relay.pipelines.loading.single_parts import load_vae_file
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.options import ModelOptions
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference.scripts import read_like_host, soft_picture
from support.checkpoints import SmallCheckpoints, open_checkpoint, write_file
from support.without_host import ListeningMonitor, counting_runtime, load
from support.without_host import encode as encode_prompt

pytestmark = pytest.mark.usefixtures("inference_mode", "registry")
VAE = "first_stage_model."
SETTINGS = TextToImageSettings(64, 64, 1, 2, 5.0, 3)
FROM_PICTURE = ImageToImageSettings(0.6, 4, 5.0, 3)


def without_vae(small: SmallCheckpoints, name: str, folder: Path) -> PipelineComponents:
    weights = {key: tensor for key, tensor in load_file(small.file(name)).items() if not key.startswith(VAE)}
    monitor = ListeningMonitor()
    model = open_checkpoint(small, write_file(folder / "x.safetensors", weights), monitor=monitor)
    assert monitor.said == ["x.safetensors contains no VAE. Give the model one with Set VAE."]
    assert "vae" not in model.modules
    return model


def paint(model: PipelineComponents) -> list[torch.Tensor]:
    runtime = counting_runtime()
    prompt = encode_prompt(model, "a cat")
    latent = image_to_image(model, prompt, FROM_PICTURE, runtime, image=read_like_host(soft_picture()))
    return [prompt.positive.hidden, latent.samples, decode(model, latent, False, runtime)]


@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "sdxl_refiner"])
@pytest.mark.parametrize("source", ["vae_file", "vae_from"])
def test_with_a_vae_it_is_the_complete_model(name: str, source: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    model = without_vae(small, name, tmp_path)
    monitor = ListeningMonitor()
    whole = open_checkpoint(small, small.file(name), monitor=monitor)
    assert monitor.said == []
    if source == "vae_from":
        completed = with_vae_of(model, whole)
    else:
        module = load_vae_file(small.file(name), model.dtype, family=model.family, configs=small.configs)
        completed = with_vae_file(model, module, source="vae.safetensors")
    assert "vae" not in model.modules
    for ours, theirs in zip(paint(completed), paint(whole)):
        assert torch.equal(ours, theirs)


USES: dict[str, Callable[[PipelineComponents, Runtime], object]] = {
    "text to image": lambda model, runtime: text_to_image(model, encode_prompt(model, "a cat"), SETTINGS, runtime),
    "image to image": lambda model, runtime: image_to_image(
        model, encode_prompt(model, "a cat"), FROM_PICTURE, runtime, image=read_like_host(soft_picture())
    ),
    "decode": lambda model, runtime: decode(model, Latents(torch.zeros(1, 4, 8, 8)), False, runtime),
    "encode": lambda model, runtime: encode(model, read_like_host(soft_picture()), 0, runtime),
    "vae_from": lambda model, runtime: with_vae_of(load("sd15"), model),
    "vae_tiling": lambda model, runtime: with_options(model, ModelOptions(vae_tiling=True), torch.device("cpu")),
}


@pytest.mark.parametrize("use", USES)
def test_each_use_of_the_missing_part_names_it(use: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    model = without_vae(small, "sd15", tmp_path)
    runtime = counting_runtime()
    with pytest.raises(RelayError, match=r"^model: x.safetensors has no VAE, .* Choose one in Set VAE, and connect"):
        USES[use](model, runtime)
    assert not runtime.policy.stages.get("denoise")


def test_options_without_a_vae_can_be_set_before_it(small: SmallCheckpoints, tmp_path: Path) -> None:
    model = with_options(without_vae(small, "sd15", tmp_path), ModelOptions(attention="sdpa"), torch.device("cpu"))
    assert with_vae_of(model, load("sd15")).options.attention == "sdpa"


@pytest.mark.parametrize(
    ("name", "other"), [("sd15", "sdxl_base"), ("sdxl_base", "sd15"), ("sd15", "kandinsky_decoder")]
)
def test_a_vae_of_another_kind_is_refused(name: str, other: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    model = without_vae(small, name, tmp_path)
    with pytest.raises(RelayError, match=r"^vae_from: x.safetensors can't use the autoencoder of .*same family"):
        with_vae_of(model, load(other))
