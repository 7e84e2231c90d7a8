"""VAEs and ControlNets in files of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.files.registry import ComponentRegistry
from diffusers_relay.pipelines.loading.folder import single_file
from diffusers_relay.pipelines.loading.single_parts import load_controlnet_file, load_vae_file
from diffusers_relay.pipelines.model.family import KANDINSKY22_DECODER, SDXL_BASE, SDXL_REFINER, STABLE_DIFFUSION
from relay_dev.model_folders import SmallModels
from small_models.native_checkpoint import original_vae
from small_models.original_checkpoints import original_controlnet
from small_models.weights import random_module
from support.checkpoints import SmallCheckpoints, make_small_checkpoints, write_file

NOW_EARLY = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


@pytest.fixture(scope="module")
def small(models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> SmallCheckpoints:
    made = make_small_checkpoints(tmp_path_factory.mktemp("parts"), models)
    for kind in ("sd15", "sd2", "sdxl"):
        controlnet(made, kind).save_config(str(made.configs / kind / "controlnet"))
    return made


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> ComponentRegistry:
    registry = ComponentRegistry()
    monkeypatch.setattr(single_file, "REGISTRY", registry)
    return registry


def controlnet(small: SmallCheckpoints, kind: str, **changes: Any) -> ControlNetModel:
    """As diffusers makes one for a UNet of the kind."""
    config = {**json.loads((small.configs / kind / "unet" / "config.json").read_text("utf-8")), **changes}
    unet = UNet2DConditionModel.from_config(config)
    made = random_module(
        lambda: ControlNetModel.from_unet(unet, load_weights_from_unet=False, conditioning_channels=3), 5
    )
    for parameter in made.parameters():  # its zero convolutions are zeros
        if not parameter.any():
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return made


def same(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    state = module.state_dict()
    return state.keys() == weights.keys() and all(torch.equal(state[key], weights[key]) for key in weights)


LAYOUTS = {
    "diffusers": lambda weights: weights,
    "early diffusers": lambda weights: {
        next((key.replace(now, early) for now, early in NOW_EARLY.items() if now in key), key): value
        for key, value in weights.items()
    },
    "original": original_vae,
    "of a checkpoint": lambda weights: {
        **{f"first_stage_model.{key}": value for key, value in original_vae(weights).items()},
        "model.something": torch.ones(1),
    },
    "vae.": lambda weights: {f"vae.{key}": value for key, value in original_vae(weights).items()},
    "with its loss": lambda weights: {**original_vae(weights), "loss.discriminator.main.0.bias": torch.ones(1)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "family", "factor"),
    [("sd15", STABLE_DIFFUSION, 0.18215), ("sdxl_base", SDXL_BASE, 0.13025), ("sdxl_base", SDXL_REFINER, 0.13025)],
    ids=["sd", "sdxl", "refiner"],
)
def test_a_vae_file_is_the_vae(
    name: str, family: Any, factor: float, layout: str, small: SmallCheckpoints, tmp_path: Path
) -> None:
    weights = load_file(small.folders[name] / "vae" / "diffusion_pytorch_model.safetensors")
    file = write_file(tmp_path / "vae.safetensors", LAYOUTS[layout](weights))
    vae = load_vae_file(file, torch.float32, family=family, configs=small.configs)
    assert type(vae) is AutoencoderKL
    assert same(vae, weights)
    assert vae.config.scaling_factor == factor
    assert load_vae_file(file, torch.float32, family=family, configs=small.configs) is vae
    assert load_vae_file(file, torch.float16, family=family, configs=small.configs).dtype == torch.float16


def test_vae_files_that_are_refused(small: SmallCheckpoints, tmp_path: Path) -> None:
    file = tmp_path / "vae.safetensors"
    weights = load_file(small.folders["sd15"] / "vae" / "diffusion_pytorch_model.safetensors")

    def refusal(words: str, weights: dict[str, torch.Tensor], family: Any = STABLE_DIFFUSION) -> None:
        write_file(file, weights)
        with pytest.raises(RelayError, match=f"^vae.safetensors.*{words}"):
            load_vae_file(file, torch.float32, family=family, configs=small.configs)

    refusal("Kandinsky 2.2 decoder takes no VAE", weights, KANDINSKY22_DECODER)
    wide = {**weights, "decoder.conv_in.weight": torch.zeros(32, 16, 3, 3)}
    refusal("latents have 4 channels: its decoder takes 16 channels", wide)
    refusal("is not a VAE", {"some.weight": torch.ones(1)})
    gone = {key: value for key, value in weights.items() if key != "decoder.conv_norm_out.bias"}
    refusal("vae are not complete", gone)
    pickle = tmp_path / "vae.pt"
    torch.save(weights, pickle)
    with pytest.raises(RelayError, match=r"vae\.pt is not a \.safetensors file"):
        load_vae_file(pickle, torch.float32, family=STABLE_DIFFUSION)


CONTROL_LAYOUTS = {
    "diffusers": lambda weights: weights,
    "original": lambda weights: {f"control_model.{key}": value for key, value in original_controlnet(weights).items()},
    "original, no prefix": original_controlnet,
}


@pytest.mark.parametrize("layout", CONTROL_LAYOUTS)
@pytest.mark.parametrize("kind", ["sd15", "sd2"])
def test_a_controlnet_file_is_the_controlnet(kind: str, layout: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    expected = controlnet(small, kind)
    file = write_file(tmp_path / "control.safetensors", CONTROL_LAYOUTS[layout](expected.state_dict()))
    loaded = load_controlnet_file(file, torch.float32, configs=small.configs)
    assert type(loaded) is ControlNetModel
    assert same(loaded, expected.state_dict())
    for ours, theirs in zip(answers(loaded, 32), answers(expected.eval(), 32), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert load_controlnet_file(file, torch.float32, configs=small.configs) is loaded


def answers(module: Any, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    sample, text, picture = (
        torch.randn(*shape, generator=generator) for shape in ((1, 4, 8, 8), (1, 77, width), (1, 3, 64, 64))
    )
    with torch.no_grad():
        down, middle = module(sample, 10, text, picture, return_dict=False)
    return [*down, middle]


SIZES = {
    "full": {},
    "small, with no attention": {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": (1, 1),
    },
    "middle": {"transformer_layers_per_block": (1, 1)},
}


@pytest.mark.parametrize("size", SIZES)
def test_sdxl_controlnets_of_every_size(size: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    expected = controlnet(small, "sdxl", **SIZES[size])
    file = write_file(tmp_path / "control.safetensors", expected.state_dict())
    loaded = load_controlnet_file(file, torch.float32, configs=small.configs)
    assert same(loaded, expected.state_dict())
    assert loaded.config.mid_block_type == expected.config.mid_block_type
    assert load_controlnet_file(file, torch.bfloat16, configs=small.configs).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("lora_controlnet", "input_hint_block.0.weight"), "Control-LoRA"),
        (("control_add_embedding.linear_1.weight", "controlnet_cond_embedding.conv_in.weight"), "ControlNet Union"),
        (("controlnet_blocks.0.weight", "controlnet_x_embedder.weight"), "transformer model"),
        (("adapter.body.0.in_conv.weight",), "T2I-Adapter"),
        (("model.diffusion_model.input_blocks.0.0.weight",), "whole checkpoint"),
        (("some.weight",), "does not know"),
        (("control_model.input_hint_block.0.weight", "control_model.label_emb.0.0.weight"), "SDXL in the original"),
    ],
)
def test_control_of_another_kind_is_refused(keys: tuple[str, ...], words: str, tmp_path: Path) -> None:
    file = write_file(tmp_path / "control.safetensors", {key: torch.zeros(1) for key in keys})
    with pytest.raises(RelayError, match=f"^control.safetensors is .*{words}"):
        load_controlnet_file(file, torch.float32)


def test_a_controlnet_that_lacks_tensors(small: SmallCheckpoints, tmp_path: Path) -> None:
    weights = controlnet(small, "sd15").state_dict()
    del weights["controlnet_mid_block.bias"]
    file = write_file(tmp_path / "control.safetensors", weights)
    with pytest.raises(RelayError, match=r"controlnet .*tensors"):
        load_controlnet_file(file, torch.float32, configs=small.configs)
    file = write_file(
        tmp_path / "control2.safetensors",
        original_controlnet(weights | {"controlnet_mid_block.bias": torch.ones(64)})
        | {"zero_convs.9.0.weight": torch.ones(1)},
    )
    with pytest.raises(RelayError, match=r"controlnet"):
        load_controlnet_file(file, torch.float32, configs=small.configs)
