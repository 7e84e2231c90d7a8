"""The shipped configs at full size, on the meta device, against the keys and shapes of real files according to the host's classes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.files.safetensors import Header
from diffusers_relay.pipelines.loading.block_layout import original_numbers
from diffusers_relay.pipelines.loading.checkpoint_kinds import layout_of
from diffusers_relay.pipelines.loading.single_file import CONFIGS
from relay_host.comfyui import get_host

UNET = "model.diffusion_model."
COMMON = {"image_size": 32, "out_channels": 4, "use_spatial_transformer": True, "legacy": False, "in_channels": 4}
LEVELS = [1, 1, 1, 1, 1, 1, 0, 0]
SD1 = {"model_channels": 320, "num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "transformer_depth": LEVELS}
SD1 |= {"transformer_depth_middle": 1, "transformer_depth_output": [1] * 9 + [0] * 3}
XL = {"num_classes": "sequential", "use_linear_in_transformer": True, "num_head_channels": 64}
NATIVE: dict[str, dict[str, Any]] = {
    "sd15": {**COMMON, **SD1, "context_dim": 768, "num_heads": 8},
    "sd2": {**COMMON, **SD1, "context_dim": 1024, "num_head_channels": 64, "use_linear_in_transformer": True},
    "sdxl": {
        **COMMON,
        **XL,
        "adm_in_channels": 2816,
        "model_channels": 320,
        "num_res_blocks": [2] * 3,
        "channel_mult": [1, 2, 4],
        "context_dim": 2048,
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    },
    "sdxl_refiner": {
        **COMMON,
        **XL,
        "adm_in_channels": 2560,
        "model_channels": 384,
        "num_res_blocks": [2] * 4,
        "channel_mult": [1, 2, 4, 4],
        "context_dim": 1280,
        "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
        "transformer_depth_middle": 4,
        "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    },
}
"""The published models as arguments of the host's UNetModel."""
DDCONFIG = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
DDCONFIG |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
OPEN_CLIPS = {
    "sd2": ("text_encoder", 1024, 24),
    "sdxl": ("text_encoder_2", 1280, 32),
    "sdxl_refiner": ("text_encoder_2", 1280, 32),
}


def read(kind: str, component: str) -> dict[str, Any]:
    return json.loads((CONFIGS / kind / component / "config.json").read_text("utf-8"))


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def empty(layout: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in layout.items()}


def native_unet(kind: str, channels: int = 4) -> dict[str, tuple[int, ...]]:
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    with torch.device("meta"):
        return shapes(UNetModel(**{**NATIVE[kind], "in_channels": channels}, device="meta"))


def unet(config: dict[str, Any]) -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("kind", NATIVE)
def test_the_unet_takes_exactly_what_a_real_file_has(kind: str, channels: int) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    layout, config = native_unet(kind, channels), read(kind, "unet")
    read_off = original_numbers(layout, config, "file")
    module = unet({**config, **read_off})
    prefixed = {UNET + key: shape for key, shape in layout.items()}
    converted = convert_ldm_unet_checkpoint(empty(prefixed), dict(module.config))
    assert {key: tuple(value.shape) for key, value in converted.items()} == shapes(module)
    # The values read from the shapes match the config, so the config would be enough.
    assert shapes(unet({**config, "in_channels": channels})) == shapes(module)
    assert {key: list(config[key]) for key in ("block_out_channels", "down_block_types", "up_block_types")} == {
        key: read_off[key] for key in ("block_out_channels", "down_block_types", "up_block_types")
    }
    assert read_off["attention_head_dim"] == config["attention_head_dim"]


DISTILLED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # {model: (arguments of the host's UNetModel, what diffusers' published config has instead of SDXL's)}
    "SSD-1B": (
        {
            "transformer_depth": [0, 0, 2, 2, 4, 4],
            "transformer_depth_output": [0, 0, 0, 1, 1, 2, 10, 4, 4],
            "transformer_depth_middle": -1,
        },
        {
            "transformer_layers_per_block": [1, 2, 4],
            "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
            "mid_block_type": "UNetMidBlock2D",
        },
    ),
    "Segmind Vega": (
        {
            "transformer_depth": [0, 0, 1, 1, 2, 2],
            "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
            "transformer_depth_middle": -1,
        },
        {"transformer_layers_per_block": [1, 1, 2], "mid_block_type": "UNetMidBlock2D"},
    ),
    "KOALA 700M": (
        {
            "num_res_blocks": [1] * 3,
            "transformer_depth": [0, 2, 5],
            "transformer_depth_output": [0, 0, 2, 2, 5, 5],
            "transformer_depth_middle": -2,
        },
        {"transformer_layers_per_block": [1, 2, 5], "layers_per_block": 1, "mid_block_type": None},
    ),
    "KOALA 1B": (
        {
            "num_res_blocks": [1] * 3,
            "transformer_depth": [0, 2, 6],
            "transformer_depth_output": [0, 0, 2, 2, 6, 6],
            "transformer_depth_middle": 6,
        },
        {"transformer_layers_per_block": [1, 2, 6], "layers_per_block": 1},
    ),
}


@pytest.mark.parametrize("name", DISTILLED)
def test_a_distilled_unet_takes_exactly_what_a_real_file_has(name: str) -> None:
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    native, published = DISTILLED[name]
    with torch.device("meta"):
        layout = shapes(UNetModel(**{**NATIVE["sdxl"], **native}, device="meta"))
    config = read("sdxl", "unet")
    read_off = original_numbers(layout, config, "file")
    assert {key: read_off.get(key, config.get(key)) for key in published} == published
    module = unet({**config, **read_off})
    converted = convert_ldm_unet_checkpoint(
        empty({UNET + key: shape for key, shape in layout.items()}), dict(module.config)
    )
    assert {key: tuple(value.shape) for key, value in converted.items()} == shapes(module)
    assert shapes(unet({**config, **published})) == shapes(module)
    assert layout_of(Header({UNET + key: shape for key, shape in layout.items()}, {}), "file").configs == "sdxl"


@pytest.mark.parametrize("kind", NATIVE)
def test_the_heads_are_the_host_s(kind: str) -> None:
    """Shapes don't show them: diffusers' attention_head_dim is a number of heads."""
    heads, native = read(kind, "unet")["attention_head_dim"], NATIVE[kind]
    widths = [native["model_channels"] * factor for factor in native["channel_mult"]]
    if "num_heads" in native:
        assert heads == native["num_heads"]
    else:
        assert [width // native["num_head_channels"] for width in widths] == heads


@pytest.mark.parametrize("kind", NATIVE)
def test_the_vae_takes_exactly_what_a_real_file_has(kind: str) -> None:
    from comfy.latent_formats import SD15, SDXL
    from comfy.ldm.models.autoencoder import AutoencoderKL as Native
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    with torch.device("meta"):
        layout = shapes(Native(ddconfig=DDCONFIG, embed_dim=4))
        module = AutoencoderKL.from_config(read(kind, "vae"))
    prefixed = {f"first_stage_model.{key}": shape for key, shape in layout.items()}
    converted = convert_ldm_vae_checkpoint(empty(prefixed), dict(module.config))
    assert {key: tuple(value.shape) for key, value in converted.items()} == shapes(module)
    assert module.config.scaling_factor == (SDXL if kind.startswith("sdxl") else SD15)().scale_factor


@pytest.mark.parametrize(
    ("kind", "component", "file"),
    [
        ("sd15", "text_encoder", "sd1_clip_config.json"),
        ("sdxl", "text_encoder", "sd1_clip_config.json"),
        ("sd2", "text_encoder", "text_encoders/sd2_clip_config.json"),
        ("sdxl", "text_encoder_2", "clip_config_bigg.json"),
        ("sdxl_refiner", "text_encoder_2", "clip_config_bigg.json"),
    ],
)
def test_text_encoders_have_the_host_s_sizes(kind: str, component: str, file: str) -> None:
    ours, host = read(kind, component), json.loads((get_host() / "comfy" / file).read_text("utf-8"))
    names = (
        "vocab_size",
        "max_position_embeddings",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "hidden_act",
    )
    assert {name: ours[name] for name in names} == {name: host[name] for name in names if name in host} | {
        "vocab_size": 49408
    }
    # diffusers uses the second to last layer of Stable Diffusion 2's encoder and leaves the last one out
    assert ours["num_hidden_layers"] == host["num_hidden_layers"] - (kind == "sd2")


@pytest.mark.parametrize("kind", OPEN_CLIPS)
def test_open_clip_encoders_take_exactly_what_a_real_file_has(kind: str) -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    component, width, layers = OPEN_CLIPS[kind]
    prefix = "cond_stage_model.model."
    layout = {
        "positional_embedding": (77, width),
        "token_embedding.weight": (49408, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        "text_projection": (width, width),
        "logit_scale": (),
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}."
        for norm in ("ln_1", "ln_2"):
            layout |= {f"{block}{norm}.weight": (width,), f"{block}{norm}.bias": (width,)}
        for name, rows, columns in (
            *(("attn.in_proj_", 3 * width, width), ("attn.out_proj.", width, width)),
            *(("mlp.c_fc.", 4 * width, width), ("mlp.c_proj.", width, 4 * width)),
        ):
            layout |= {f"{block}{name}weight": (rows, columns), f"{block}{name}bias": (rows,)}
    config = CLIPTextConfig(**read(kind, component))
    with torch.device("meta"):
        module = (CLIPTextModel if kind == "sd2" else CLIPTextModelWithProjection)(config)
    place = prefix if kind == "sd2" else "conditioner.embedders.1.model."
    converted = convert_open_clip_checkpoint(module, empty({place + key: s for key, s in layout.items()}), prefix=place)
    names = {key.removeprefix("text_model."): tuple(value.shape) for key, value in converted.items()}
    expected = {key.removeprefix("text_model."): shape for key, shape in shapes(module).items()}
    assert {key: shape for key, shape in names.items() if key in expected} == expected
    assert set(names) - set(expected) <= {"text_projection.weight"}


@pytest.mark.parametrize("kind", NATIVE)
def test_the_host_tells_the_same_kind(kind: str) -> None:
    from comfy.model_detection import model_config_from_unet

    clip = {
        "sd15": ["cond_stage_model.transformer.text_model.final_layer_norm.bias"],
        "sd2": ["cond_stage_model.model.ln_final.bias"],
        "sdxl": [f"conditioner.embedders.{rest}" for rest in ("0.transformer.text_model.x", "1.model.ln_final.bias")],
        "sdxl_refiner": ["conditioner.embedders.0.model.ln_final.bias"],
    }[kind]
    layout = {UNET + key: shape for key, shape in native_unet(kind).items()}
    native = type(model_config_from_unet(empty(layout), UNET)).__name__
    others = dict.fromkeys((*clip, "first_stage_model.decoder.conv_in.weight"), (1,))
    assert layout_of(Header({**layout, **others}, {}), "file").configs == kind
    assert native == {"sd15": "SD15", "sd2": "SD20", "sdxl": "SDXL", "sdxl_refiner": "SDXLRefiner"}[kind]


@pytest.mark.parametrize("kind", ["sd15", "sd2"])
def test_the_controlnet_takes_exactly_what_a_real_file_has(kind: str) -> None:
    from comfy.cldm.cldm import ControlNet as Native
    from diffusers import ControlNetModel
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    native = {
        key: value for key, value in NATIVE[kind].items() if key not in ("out_channels", "transformer_depth_output")
    }
    with torch.device("meta"):
        layout = shapes(Native(**native, hint_channels=3, device="meta"))
    config = read(kind, "controlnet")
    with torch.device("meta"):
        module = ControlNetModel.from_config({**config, **original_numbers(layout, config, "file")})
    converted = convert_controlnet_checkpoint(
        empty({f"control_model.{k}": v for k, v in layout.items()}), dict(module.config)
    )
    assert {key: tuple(value.shape) for key, value in converted.items()} == shapes(module)


def test_playground_and_cosxl_have_the_host_s_numbers() -> None:
    from comfy.latent_formats import SDXL_Playground_2_5
    from comfy.supported_models import SDXL

    theirs = SDXL_Playground_2_5()
    vae = read("playground_v2_5", "vae")
    assert vae["scaling_factor"] == theirs.scale_factor
    for ours, tensor in ((vae["latents_mean"], theirs.latents_mean), (vae["latents_std"], theirs.latents_std)):
        assert ours == pytest.approx(tensor.flatten().tolist())
    marks = {"edm_mean": torch.zeros(1), "edm_std": torch.zeros(1)}
    for kind, state in (("playground_v2_5", marks), ("cosxl", {"edm_vpred.sigma_max": torch.tensor(120.0)})):
        host = SDXL({"image_model": "sdxl"})
        host.model_type(state)
        path = CONFIGS / kind / "scheduler" / "scheduler_config.json"
        scheduler = json.loads(path.read_text("utf-8"))
        wanted = {"sigma_max": 120.0, "sigma_data": 1.0, "sigma_min": 0.002, **host.sampling_settings}
        assert {name: scheduler[name] for name in wanted} == wanted


def test_the_host_s_vocabulary_gives_the_published_tokens() -> None:
    """Length and padding depend on the kind, not on the host's own tokenizer_config.json (8192)."""
    from comfy.sd1_clip import SDTokenizer

    from diffusers_relay.nodes import comfy_host
    from diffusers_relay.pipelines.loading.checkpoint_table import CLIP
    from diffusers_relay.pipelines.loading.single_file import _tokenizer

    text = "a red cat, weiße Häuser"
    words = [pair[0] for pair in SDTokenizer().tokenize_with_weights(text)[0]]
    for kind, component, pad in (
        ("sd15", "tokenizer", 49407),
        ("sdxl", "tokenizer", 49407),
        ("sd2", "tokenizer", 0),
        ("sdxl", "tokenizer_2", 0),
        ("sdxl_refiner", "tokenizer_2", 0),
    ):
        tokenizer = _tokenizer(CLIP, comfy_host.vocabularies(), CONFIGS / kind / component, "file")
        ids = tokenizer(text, padding="max_length", truncation=True, max_length=tokenizer.model_max_length).input_ids
        end = words.index(49407) + 1
        assert ids == words[:end] + [pad] * (77 - end)
        assert tokenizer.model_max_length == 77
