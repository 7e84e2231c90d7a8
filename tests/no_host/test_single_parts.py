"""VAEs and ControlNets in separate files, and files that are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.files.registry import ComponentRegistry
from diffusers_relay.pipelines.loading import file_part, single_file
from diffusers_relay.pipelines.loading.single_file import load_checkpoint
from diffusers_relay.pipelines.loading.single_parts import load_controlnet_file, load_vae_file
from diffusers_relay.pipelines.model.family_table import KANDINSKY22_DECODER, SDXL_BASE, SDXL_REFINER, STABLE_DIFFUSION
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
    monkeypatch.setattr(file_part, "REGISTRY", registry)
    return registry


def controlnet(small: SmallCheckpoints, kind: str, **changes: Any) -> ControlNetModel:
    """As diffusers makes one for this kind of UNet."""
    config = {**json.loads((small.configs / kind / "unet" / "config.json").read_text("utf-8")), **changes}
    unet = UNet2DConditionModel.from_config(config)
    made = random_module(
        lambda: ControlNetModel.from_unet(unet, load_weights_from_unet=False, conditioning_channels=3), 5
    )
    for parameter in made.parameters():  # its zero convolutions start at zero
        if not parameter.any():
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return made


def same(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    state = module.state_dict()
    return state.keys() == weights.keys() and all(torch.equal(state[key], weights[key]) for key in weights)


def later_original(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As written by diffusers' conversion script: the original keys, except for the attention."""
    later = {".q.": ".to_q.", ".k.": ".to_k.", ".v.": ".to_v.", ".proj_out.": ".to_out.0."}
    return {
        next(
            (key.replace(f".attn_1{old}", f".attn_1{new}") for old, new in later.items() if f".attn_1{old}" in key), key
        ): value
        for key, value in original_vae(weights).items()
    }


LAYOUTS = {
    "diffusers": lambda weights: weights,
    "early diffusers": lambda weights: {
        next((key.replace(now, early) for now, early in NOW_EARLY.items() if now in key), key): value
        for key, value in weights.items()
    },
    "original": original_vae,
    "original of today": later_original,
    "original, linear": lambda weights: {
        key: value.flatten(1) if ".attn_1." in key and value.ndim == 4 else value
        for key, value in later_original(weights).items()
    },
    "diffusers, 1 x 1": lambda weights: {
        key: value[:, :, None, None] if ".attentions." in key and value.ndim == 2 else value
        for key, value in weights.items()
    },
    "of a checkpoint": lambda weights: {
        **{f"first_stage_model.{key}": value for key, value in original_vae(weights).items()},
        "model.something": torch.ones(1),
    },
    "vae.": lambda weights: {f"vae.{key}": value for key, value in original_vae(weights).items()},
    "module.": lambda weights: {f"module.{key}": value for key, value in weights.items()},
    "state_dict.": lambda weights: {f"state_dict.{key}": value for key, value in original_vae(weights).items()},
    "model.": lambda weights: {f"model.{key}": value for key, value in original_vae(weights).items()},
    "compiled": lambda weights: {f"_orig_mod.{key}": value for key, value in original_vae(weights).items()},
    "compiled inside": lambda weights: {key.replace("decoder.", "decoder._orig_mod."): weights[key] for key in weights},
    "with its loss": lambda weights: {**original_vae(weights), "loss.discriminator.main.0.bias": torch.ones(1)},
    "with its average": lambda weights: {
        **original_vae(weights),
        "model_ema.decay": torch.ones(()),
        "model_ema.decoderconv_inweight": torch.ones(1),
    },
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

    refusal("Kandinsky 2.2 decoder can't use a VAE file", weights, KANDINSKY22_DECODER)
    wide = {**weights, "decoder.conv_in.weight": torch.zeros(32, 16, 3, 3)}
    refusal("latents have 4 channels. Its decoder takes 16 channels", wide)
    refusal("is not a VAE .* has neither encoder.conv_in nor decoder.conv_in", {"some.weight": torch.ones(1)})
    for side, other in (("decoder", "encoder"), ("encoder", "decoder")):
        half = {key: value for key, value in weights.items() if key.startswith(side)}
        refusal(f"contains only the {side} of a VAE, without the {other}. Set VAE needs both", half)
    refusal("is not a VAE .*It is a small preview VAE", {"decoder.layers.1.weight": torch.ones(1)})
    refusal("is not a VAE .*It is a LoRA", {"lora_unet_x.lora_down.weight": torch.ones(1)})
    grey = {**weights, "encoder.conv_in.weight": torch.zeros(32, 1, 3, 3)}
    refusal("Its encoder takes images with 1 channels", grey)
    extra = {**weights, "encoder.down_blocks.0.attentions.0.to_q.weight": torch.zeros(32, 32)}
    refusal("the tensors of its vae don't match the AutoencoderKL", extra)
    gone = {key: value for key, value in weights.items() if key != "decoder.conv_norm_out.bias"}
    refusal("the tensors of its vae don't match .* or incomplete", gone)
    unet = "model.diffusion_model."
    refusal(
        "is not a VAE .* It is a Flux without a VAE",
        {unet + "double_blocks.0.x": torch.ones(1), unet + "single_blocks.x": torch.ones(1)},
    )
    whole = {f"vae.{key}": value for key, value in wide.items()} | {unet + "joint_blocks.0.x": torch.ones(1)}
    refusal("latents have 4 channels. Its decoder takes 16 channels", whole)
    whole = {f"vae.{key}": value for key, value in weights.items()}
    refusal("8-bit weights, which .* float16 file", weights | {"decoder.conv_out.scale_weight": torch.ones(())})
    one = "decoder.conv_out.weight"
    for integers in (weights[one].to(torch.int8), weights[one] > 0, weights[one].to(torch.complex64)):
        refusal(
            r"quantised or not weights at all \(decoder.conv_out.weight has dtype (I8|BOOL|C64)\)",
            weights | {one: integers},
        )
    refusal(
        r"or incomplete.*decoder.conv_out.bias has shape \[2\], but this kind has \[3\]",
        weights | {"decoder.conv_out.bias": torch.ones(2)},
    )
    pickle = tmp_path / "vae.pt"
    torch.save(weights, pickle)
    with pytest.raises(RelayError, match=r"vae\.pt is not a \.safetensors file"):
        load_vae_file(pickle, torch.float32, family=STABLE_DIFFUSION)


CONTROL_LAYOUTS = {
    "diffusers": lambda weights: weights,
    "original": lambda weights: {f"control_model.{key}": value for key, value in original_controlnet(weights).items()},
    "original, no prefix": original_controlnet,
    "module.": lambda weights: {f"module.{key}": value for key, value in weights.items()},
    "compiled": lambda weights: {f"_orig_mod.{key}": value for key, value in weights.items()},
    "module.control_model.": lambda weights: {
        f"module.control_model.{key}": value for key, value in original_controlnet(weights).items()
    },
    "of a checkpoint": lambda weights: {
        **{f"control_model.{key}": value for key, value in original_controlnet(weights).items()},
        "model.diffusion_model.input_blocks.0.0.weight": torch.ones(1),
    },
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


HINT = "controlnet_cond_embedding.conv_in.weight"
OTHER_CONTROL = {
    "Control-LoRA": (("lora_controlnet", "input_hint_block.0.weight"), "a Control-LoRA"),
    "LoRA": (("lora_unet_x.lora_down.weight",), "a LoRA"),
    "XS": (("down_blocks.0.ctrl_to_base.weight", HINT), "a ControlNet-XS"),
    "XS, original": (
        ("control_model.enc_zero_convs_in.0.weight", "control_model.input_hint_block.0.weight"),
        "a ControlNet-XS",
    ),
    "LLLite": (("lllite_unet_input_blocks_4_1_x.down.0.weight",), "a ControlLLLite"),
    "SparseCtrl": (("down_blocks.0.motion_modules.0.x", HINT), "an AnimateDiff SparseCtrl"),
    "Flux": (("controlnet_blocks.0.weight", "controlnet_x_embedder.weight"), "a ControlNet for a transformer model"),
    "HunyuanDiT": (("after_proj_list.18.bias",), "a ControlNet for a transformer model"),
    "T2I": (("adapter.body.0.in_conv.weight",), "a T2I-Adapter"),
    "T2I, original": (("conv_in.weight", "body.0.block1.weight"), "a T2I-Adapter"),
    "T2I, style": (("style_embedding", "transformer_layes.0.attn.in_proj_weight"), "a T2I-Adapter"),
    "IP-Adapter": (("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"), "an IP-Adapter"),
    "checkpoint": (
        ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"),
        "a complete checkpoint",
    ),
    "UNet": (("model.diffusion_model.input_blocks.0.0.weight",), "only a UNet, not a ControlNet"),
    "VAE": (("decoder.conv_in.weight", "decoder.conv_out.weight"), "only a VAE, not a ControlNet. Put it into"),
    "upscaler": (("body.0.rdb1.conv1.weight",), "an image upscaler .*, not a ControlNet"),
    "embedding": (("emb_params",), "a textual inversion, not a ControlNet. Put it into"),
    "Flux itself": (("double_blocks.0.x", "single_blocks.0.x"), "a Flux, not a ControlNet"),
    "unknown": (("some.weight",), "a kind of file that Diffusers Relay does not know"),
    "difference": (
        ("difference", "control_model.input_hint_block.0.weight"),
        "a difference ControlNet, whose weights must be added",
    ),
    "SDXL": (
        ("control_model.input_hint_block.0.weight", "control_model.label_emb.0.0.weight"),
        "a ControlNet for SDXL in the original layout",
    ),
}


@pytest.mark.parametrize("name", OTHER_CONTROL)
def test_control_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    keys, words = OTHER_CONTROL[name]
    file = write_file(tmp_path / "control.safetensors", {key: torch.zeros(1) for key in keys})
    with pytest.raises(RelayError, match=f"^control.safetensors is {words}"):
        load_controlnet_file(file, torch.float32)


NAMES = {
    # {file name: whether it pools; None: rejected}
    "control_v11e_sd15_shuffle.safetensors": True,
    "control_v11e_sd15_shuffle_fp16.safetensors": True,
    "Shuffle-v1.1.safetensors": True,
    "control_v11e_sd15_shuffle/diffusion_pytorch_model.fp16.safetensors": True,
    "control_v11p_sd15_canny.safetensors": False,
    "pixelshuffled.safetensors": False,
    "shuffle/canny.safetensors": False,
    "control_v11p_sd15_inpaint.safetensors": False,
    "control_v11e_sd15_ip2p.safetensors": False,
    "control_v11f1e_sd15_tile.safetensors": False,
    "diff_control_sd15_canny_fp16.safetensors": None,
    "InstantID/diffusion_pytorch_model.safetensors": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_what_only_the_name_tells(name: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    file = write_file(tmp_path / name, controlnet(small, "sd15").state_dict())
    if NAMES[name] is None:
        with pytest.raises(RelayError, match=r"is named like"):
            load_controlnet_file(file, torch.float32, configs=small.configs)
        return
    loaded = load_controlnet_file(file, torch.float32, configs=small.configs)
    assert loaded.config.global_pool_conditions is NAMES[name]
    for ours, plain in zip(answers(loaded, 32), answers(controlnet(small, "sd15").eval(), 32), strict=True):
        expected = plain.mean(dim=(2, 3), keepdim=True) if NAMES[name] else plain
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_controlnet_that_lacks_tensors(small: SmallCheckpoints, tmp_path: Path) -> None:
    weights = controlnet(small, "sd15").state_dict()
    del weights["controlnet_mid_block.bias"]
    file = write_file(tmp_path / "control.safetensors", weights)
    with pytest.raises(RelayError, match=r"the tensors of its controlnet don't match"):
        load_controlnet_file(file, torch.float32, configs=small.configs)
    file = write_file(
        tmp_path / "control2.safetensors",
        original_controlnet(weights | {"controlnet_mid_block.bias": torch.ones(64)})
        | {"zero_convs.9.0.weight": torch.ones(1)},
    )
    with pytest.raises(RelayError, match=r"controlnet"):
        load_controlnet_file(file, torch.float32, configs=small.configs)


def dropped(weights: dict[str, torch.Tensor], random: Random) -> None:
    del weights[random.choice(sorted(weights))]


def block_dropped(weights: dict[str, torch.Tensor], random: Random) -> None:
    block = ".".join(random.choice(sorted(weights)).split(".")[: random.randint(1, 4)])
    for key in [key for key in weights if key.startswith(block)]:
        del weights[key]


def renamed(weights: dict[str, torch.Tensor], random: Random) -> None:
    key = random.choice(sorted(weights))
    weights[random.choice([f"x.{key}", key + "x", key.replace(".", "_"), key[1:], key.replace("0", "7")])] = (
        weights.pop(key)
    )


def reshaped(weights: dict[str, torch.Tensor], random: Random) -> None:
    key = random.choice(
        [*[key for key in sorted(weights) if "0.0.weight" in key or "conv_in" in key], *sorted(weights)[:40]]
    )
    value = weights[key]
    weights[key] = random.choice(
        [
            torch.ones(()),
            torch.ones(0),
            value[None],
            value.flatten(),
            value[:1],
            value.repeat(2, *[1] * (value.ndim - 1)),
        ]
    )


def prefixed(weights: dict[str, torch.Tensor], random: Random) -> None:
    start = random.choice(
        ["module.", "model.", "x", ".", "control_model.", "first_stage_model.", "model.diffusion_model."]
    )
    some = random.random() < 0.5
    for key in sorted(weights):
        if not some or random.random() < 0.5:
            weights[start + key] = weights.pop(key)


def added(weights: dict[str, torch.Tensor], random: Random) -> None:
    key = random.choice(sorted(weights))
    weights[random.choice(["", "0", "decoder.", "input_blocks.99.0.x", key + ".0", key.replace("0", "12")])] = (
        torch.ones(2)
    )


DAMAGE = (dropped, block_dropped, renamed, reshaped, prefixed, added)
FUZZED = (
    *("sd15", "sdxl_base", "unet of sdxl_base", "original unet of sd15"),
    *("vae", "original vae", "controlnet", "original controlnet"),
)
TEXT_STARTS = ("cond_stage_model.", "conditioner.embedders.")
MAY_LACK = {"vae": ("first_stage_model.",), "text_encoder": TEXT_STARTS, "text_encoder_2": TEXT_STARTS}
"""Parts that a checkpoint may lack -> the starts of their keys."""


FEWEST_RUNS = 15
"""Also on a machine that is too busy to run more in three seconds."""


@pytest.mark.parametrize("name", FUZZED)
def test_a_changed_file_is_refused_or_is_right(name: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    """Whatever the header says, the loaders return the right model or raise a RelayError."""
    if "control" in name:
        good = controlnet(small, "sd15").state_dict()
        whole = original_controlnet(good) if "original" in name else good

        def load(file: Path) -> dict[str, torch.nn.Module]:
            return {"": load_controlnet_file(file, torch.float32, configs=small.configs)}

    elif "vae" in name:
        good = load_file(small.folders["sd15"] / "vae" / "diffusion_pytorch_model.safetensors")
        whole = original_vae(good) if "original" in name else good

        def load(file: Path) -> dict[str, torch.nn.Module]:
            return {"": load_vae_file(file, torch.float32, family=STABLE_DIFFUSION, configs=small.configs)}

    else:
        kind = name.rpartition(" ")[2]
        whole = load_file(small.file(kind))
        if name == "unet of sdxl_base":
            whole = load_file(small.folders[kind] / "unet" / "diffusion_pytorch_model.safetensors")
        elif "unet" in name:
            place = "model.diffusion_model."
            whole = {key.removeprefix(place): whole[key] for key in whole if key.startswith(place)}

        def load(file: Path) -> dict[str, torch.nn.Module]:
            model = load_checkpoint(
                file,
                dtype=torch.float32,
                vocabularies=small.vocabularies,
                monitor=SilentMonitor(),
                configs=small.configs,
            )
            return {part: module for part, module in model.modules.items() if isinstance(module, torch.nn.Module)}

    def written(weights: dict[str, torch.Tensor], file: str) -> Path:
        return write_file(tmp_path / file, weights)

    plain = {part: module.state_dict() for part, module in load(written(whole, "whole.safetensors")).items()}
    random, until, refused = Random(20240229), monotonic() + 3, 0
    for run in range(60):
        weights = dict(whole)
        for _ in range(random.choice((1, 1, 2))):
            if weights:
                random.choice(DAMAGE)(weights, random)
        try:
            loaded = load(written(weights, f"{run}.safetensors"))
        except RelayError:
            refused += 1
        else:
            for part, state in plain.items():
                if part not in loaded:
                    assert not any(key.startswith(MAY_LACK[part]) for key in weights), (run, part)
                    continue
                others = loaded[part].state_dict()
                values = [others[key] for key in state if key in others]
                assert all(torch.equal(others[key], state[key]) for key in state if key in others), (run, part)
                assert len(values) == len(others), (run, part)
        if run >= FEWEST_RUNS and monotonic() > until:
            break
    assert refused > 3
