"""Files with a UNet and without text encoders: the kind is told by shapes, and another model's prompt and VAE give the complete model's numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffusers_relay.pipelines.adapters.textual_inversion import with_textual_inversion
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.files.safetensors import Header
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.other_autoencoder import with_vae_of
from diffusers_relay.pipelines.loading.block_layout import diffusers_numbers, original_numbers
from diffusers_relay.pipelines.loading.checkpoint_kinds import is_known_kind, layout_of
from diffusers_relay.pipelines.loading.checkpoint_layout import CONFIGS
from diffusers_relay.pipelines.loading.checkpoint_place import placed
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import PromptEmbeds
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from small_models.native_checkpoint import Weights
from small_models.original_checkpoints import whole_unet
from small_models.weights import random_module
from support.checkpoints import SmallCheckpoints, open_checkpoint, write_file
from support.lora_files import open_lora, pair, put
from support.without_host import ListeningMonitor, counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode", "registry")
UNET = "model.diffusion_model."
NO_VAE = "x.safetensors contains no VAE. Give the model one with Set VAE."
NO_TEXT = (
    "x.safetensors contains no text encoder. Encode prompts with a complete {} model, and connect them to this one."
)
TITLES = {
    "sd15": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl_base": "SDXL base",
    "sdxl_refiner": "SDXL refiner",
}


def original(weights: Weights, place: str) -> Weights:
    return {place + key.removeprefix(UNET): value for key, value in weights.items() if key.startswith(UNET)}


def of_folder(folder: Path) -> Weights:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


FORMS: dict[str, Callable[[Weights, Path], Weights]] = {
    "of a checkpoint": lambda weights, folder: original(weights, UNET),
    "bare": lambda weights, folder: original(weights, ""),
    "module.": lambda weights, folder: original(weights, f"module.{UNET}"),
    "with a VAE": lambda weights, folder: {k: v for k, v in weights.items() if k.startswith((UNET, "first_stage_"))},
    "of diffusers": lambda weights, folder: of_folder(folder),
    "of diffusers, compiled": lambda weights, folder: {f"_orig_mod.{k}": v for k, v in of_folder(folder).items()},
}


def unet_file(small: SmallCheckpoints, name: str, form: str, path: Path) -> Path:
    return write_file(path / "x.safetensors", FORMS[form](load_file(small.file(name)), small.folders[name]))


def unet_alone(small: SmallCheckpoints, name: str, path: Path, form: str = "bare") -> PipelineComponents:
    return open_checkpoint(small, unet_file(small, name, form, path))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl_base", "sdxl_refiner", "sdxl_base_inpaint"])
def test_the_unet_is_the_folder_s(name: str, form: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    monitor = ListeningMonitor()
    model = open_checkpoint(small, unet_file(small, name, form, tmp_path), monitor=monitor)
    whole = open_checkpoint(small, small.file(name))
    has_vae = form == "with a VAE"
    assert set(model.modules) == {"unet", "scheduler"} | ({"vae"} if has_vae else set())
    assert monitor.said == [NO_VAE] * (not has_vae) + [NO_TEXT.format(TITLES[name.removesuffix("_inpaint")])]
    assert model.family is whole.family
    assert dict(model.config) == dict(whole.config)
    assert model["scheduler"].config == whole["scheduler"].config
    state, expected = model["unet"].state_dict(), whole["unet"].state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    mine, theirs = dict(model["unet"].config), dict(whole["unet"].config)
    assert {key for key in mine if mine[key] != theirs[key]} <= {"_name_or_path"}


@pytest.mark.parametrize("form", ["bare", "of diffusers"])
@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "sdxl_refiner"])
def test_with_the_prompt_and_the_vae_of_another_it_is_the_complete_model(
    name: str, form: str, small: SmallCheckpoints, tmp_path: Path
) -> None:
    whole = open_checkpoint(small, small.file(name))
    model = with_vae_of(unet_alone(small, name, tmp_path, form), whole)
    runtime, picture = counting_runtime(), read_like_host(soft_picture())
    prompt = encode(whole, "a cat", "dog")
    settings = ImageToImageSettings(0.6, 3, 5.0, 3)
    ours, theirs = (image_to_image(one, prompt, settings, runtime, image=picture) for one in (model, whole))
    assert torch.equal(ours.samples, theirs.samples)
    assert torch.equal(decode(model, ours, False, runtime), decode(whole, theirs, False, runtime))


def test_what_needs_a_text_encoder_says_that_there_is_none(
    small: SmallCheckpoints, models: SmallModels, tmp_path: Path
) -> None:
    model = unet_alone(small, "sd15", tmp_path)
    none = r"^model: x.safetensors \(Stable Diffusion 1.x / 2.x\) has no text encoder, because its file contains none\."
    with pytest.raises(
        RelayError, match=none + " Encode the prompt with a complete model of the same kind, and connect"
    ):
        encode(model, "a cat")
    embedding = models.models / "embeddings" / "ember.safetensors"
    with pytest.raises(RelayError, match=none + " Load the embedding into the model that encodes the prompt"):
        with_textual_inversion(model, embedding, title="ember", token="")


def narrower(prompt: PromptEmbeds, field: str) -> PromptEmbeds:
    return replace(prompt, positive=replace(prompt.positive, **{field: getattr(prompt.positive, field)[..., :8]}))


def test_a_prompt_of_other_widths_is_refused(small: SmallCheckpoints, tmp_path: Path) -> None:
    settings, runtime = TextToImageSettings(64, 64, 1, 2, 5.0, 3), counting_runtime()
    whole = open_checkpoint(small, small.file("sdxl_base"))
    model = with_vae_of(unet_alone(small, "sdxl_base", tmp_path), whole)
    prompt = encode(whole, "a cat")
    for field, what, needed in (("hidden", "text", 64), ("pooled", "pooled text", 32)):
        words = rf"^prompt: it was encoded by sdxl_base.safetensors, whose {what} has width 8, but x.safetensors .* reads {what} of width {needed}\."
        with pytest.raises(RelayError, match=words):
            text_to_image(model, narrower(prompt, field), settings, runtime)
    with pytest.raises(
        RelayError, match=r"^prompt: it was encoded for sd15, .* but x.safetensors .*uses the last layer"
    ):
        text_to_image(model, encode(load("sd15"), "a cat"), settings, runtime)
    with pytest.raises(RelayError, match=r"^prompt: it was encoded by sdxl_refiner, whose text has width 32, but"):
        text_to_image(model, encode(load("sdxl_refiner"), "a cat"), settings, runtime)
    assert not runtime.policy.stages.get("denoise")


def test_the_refiner_s_pooled_text_is_told_beside_its_score(small: SmallCheckpoints, tmp_path: Path) -> None:
    """The refiner reads five numbers beside the pooled text, SDXL six: with six, a right prompt would be refused."""
    whole = open_checkpoint(small, small.file("sdxl_refiner"))
    model = with_vae_of(unet_alone(small, "sdxl_refiner", tmp_path), whole)
    prompt, runtime = encode(whole, "a cat"), counting_runtime()
    picture = read_like_host(soft_picture())
    with pytest.raises(RelayError, match=r"whose pooled text has width 8, but .* of width 32"):
        image_to_image(model, narrower(prompt, "pooled"), ImageToImageSettings(0.6, 3, 5.0, 3), runtime, image=picture)


TEXT_LAYER = "encoder.layers.0.mlp.fc1"
LORA_LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT_STARTS = ("lora_te_text_model_", "text_encoder.text_model.", "base_model.model.text_model.", "lycoris_text_model_")


@pytest.mark.parametrize("start", TEXT_STARTS)
def test_a_lora_s_layers_for_text_encoders_are_skipped_and_said(
    start: str, small: SmallCheckpoints, tmp_path: Path
) -> None:
    model, whole = unet_alone(small, "sd15", tmp_path), load("sd15")
    name = start + (TEXT_LAYER if start.endswith(".") else TEXT_LAYER.replace(".", "_"))
    text, painter = pair(whole, "text_encoder", TEXT_LAYER), pair(whole, "unet", LORA_LAYER)
    ends = (".lora_A.weight", ".lora_B.weight")
    tensors = {name + end: tensor for end, tensor in zip(ends, text)}
    unet = {f"unet.{LORA_LAYER}{end}": tensor for end, tensor in zip(ends, painter)}
    view = open_lora(model, put(tmp_path / "lora.safetensors", tensors | unet))
    (lora,) = view.loras
    assert set(lora.weights.layers) == {"unet"}
    assert any(
        "has no text encoder, so the 1 layers of the LoRA for text encoders are not used" in n
        for n in lora.weights.notes
    )
    assert lora.mark is None
    with pytest.raises(RelayError, match=r"only changes text encoders, and x.safetensors .* has none\. Load it into"):
        open_lora(model, put(tmp_path / "text.safetensors", tensors))


def test_a_layer_that_no_part_has_is_still_an_error(small: SmallCheckpoints, tmp_path: Path) -> None:
    model = unet_alone(small, "sd15", tmp_path)
    tensors = {f"unet.nowhere{end}": torch.ones(4, 4) for end in (".lora_A.weight", ".lora_B.weight")}
    with pytest.raises(RelayError, match=r"lacks 1 of its 1 layers, such as unet.nowhere"):
        open_lora(model, put(tmp_path / "lora.safetensors", tensors))


# --- the kinds, by the shapes of the published files

SSD_1B = {
    "transformer_layers_per_block": [1, 2, 4],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}
VEGA = {"transformer_layers_per_block": [1, 1, 2], "mid_block_type": "UNetMidBlock2D"}
KOALA_700M = {"transformer_layers_per_block": [1, 2, 5], "layers_per_block": 1, "mid_block_type": None}
KOALA_1B = {"transformer_layers_per_block": [1, 2, 6], "layers_per_block": 1}
REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "SD1.5": ("sd15", {}),
    "SD1.5 inpainting": ("sd15", {"in_channels": 9}),
    "SD2": ("sd2", {}),
    "SDXL": ("sdxl", {}),
    "SDXL inpainting": ("sdxl", {"in_channels": 9}),
    "refiner": ("sdxl_refiner", {}),
    "SSD-1B": ("sdxl", SSD_1B),
    "Segmind Vega": ("sdxl", VEGA),
    "KOALA 700M": ("sdxl", KOALA_700M),
    "KOALA 1B": ("sdxl", KOALA_1B),
}
OF_DIFFUSERS_ALONE = {
    "LCM of SD1.5": ("sd15", {"time_cond_proj_dim": 256}),
    "LCM of SDXL": ("sdxl", {"time_cond_proj_dim": 256}),
    "LCM of SSD-1B": ("sdxl", {**SSD_1B, "time_cond_proj_dim": 256}),
}


@cache
def published(name: str) -> dict[str, torch.Tensor]:
    """The UNet's tensors at full size, without data, with diffusers' keys."""
    kind, changes = {**REAL, **OF_DIFFUSERS_ALONE}[name]
    return empty_unet(kind, changes)


def empty_unet(kind: str, numbers: dict[str, Any]) -> dict[str, torch.Tensor]:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return dict(UNet2DConditionModel.from_config({**config_of(kind), **numbers}).state_dict())


def config_of(kind: str) -> dict[str, Any]:
    return json.loads((CONFIGS / kind / "unet" / "config.json").read_text("utf-8"))


def header_of(tensors: dict[str, torch.Tensor]) -> Header:
    return Header({key: tuple(tensor.shape) for key, tensor in tensors.items()}, {})


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("name", [*REAL, *OF_DIFFUSERS_ALONE])
def test_a_published_unet_is_told_by_its_shapes(name: str, layout: str) -> None:
    if name in OF_DIFFUSERS_ALONE and layout == "original":
        with pytest.raises(KeyError, match="cond_proj"):
            whole_unet(published(name))  # the original layout has no such layer
        return
    kind, changes = {**REAL, **OF_DIFFUSERS_ALONE}[name]
    tensors = whole_unet(published(name)) if layout == "original" else published(name)
    header = placed(header_of(tensors)).header
    assert layout_of(header, "file").configs == kind
    config = config_of(kind)
    shapes = {key.removeprefix(UNET): shape for key, shape in header.shapes.items()}
    numbers = (original_numbers if layout == "original" else diffusers_numbers)(shapes, config, "file")
    assert {key: tuple(value.shape) for key, value in empty_unet(kind, numbers).items()} == {
        key: tuple(value.shape) for key, value in published(name).items()
    }
    assert numbers["attention_head_dim"] == config["attention_head_dim"]
    assert numbers.get("time_cond_proj_dim") == changes.get("time_cond_proj_dim")


OTHER_UNETS = {
    "Kolors": ("sdxl", {"projection_class_embeddings_input_dim": 5632}, "projection_class_embeddings_input_dim 5632"),
    "SD2.1 unCLIP": (
        "sd2",
        {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048},
        "projection_class_embeddings_input_dim 2048",
    ),
    "x4 upscaler": ("sd2", {"in_channels": 7}, "is the Stable Diffusion x4 upscaler"),
    "InstructPix2Pix": ("sd15", {"in_channels": 8}, "is an InstructPix2Pix"),
    "SDXL edit": ("sdxl", {"in_channels": 8}, "is an InstructPix2Pix"),
    "another width": ("sd15", {"cross_attention_dim": 512}, "cross_attention_dim 512"),
}


@pytest.mark.parametrize("name", OTHER_UNETS)
def test_another_unet_is_refused_by_what_it_is(name: str) -> None:
    kind, changes, words = OTHER_UNETS[name]
    with pytest.raises(RelayError, match=words):
        layout_of(placed(header_of(empty_unet(kind, changes))).header, "file")


def test_a_latent_consistency_unet_gets_its_scheduler(small: SmallCheckpoints, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    config = json.loads((small.configs / "sdxl" / "unet" / "config.json").read_text("utf-8"))
    unet = random_module(lambda: UNet2DConditionModel.from_config({**config, "time_cond_proj_dim": 16}), 11)
    model = open_checkpoint(small, write_file(tmp_path / "x.safetensors", unet.state_dict()))
    assert type(model["scheduler"]).__name__ == "LCMScheduler"
    assert model["scheduler"].config.beta_schedule == "scaled_linear"
    assert model["unet"].config.time_cond_proj_dim == 16
    state = model["unet"].state_dict()
    assert all(torch.equal(state[key], value) for key, value in unet.state_dict().items())


def test_a_list_knows_what_loads_without_loading_it(small: SmallCheckpoints, tmp_path: Path) -> None:
    for name in ("sd15", "sdxl_base"):
        for form in ("bare", "of diffusers"):
            assert is_known_kind(unet_file(small, name, form, tmp_path), small.configs)
    flux = {"double_blocks.0.x": torch.zeros(1), "single_blocks.0.x": torch.zeros(1)}
    assert not is_known_kind(write_file(tmp_path / "flux.safetensors", flux), small.configs)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(small.file("sd15").read_bytes()[:99])
    assert not is_known_kind(cut, small.configs)
    assert not is_known_kind(tmp_path / "gone.safetensors", small.configs)
