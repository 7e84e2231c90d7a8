"""LoRA files as trainers write them: each gives the layers that a merge by hand gives, or is called what it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diffusers_relay.pipelines.adapters.lora import active_loras, with_lora
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.model.components import PipelineComponents
from small_models.native_checkpoint import original_unet
from support.without_host import load

RANK = 4
UNET = "down_blocks.0.attentions.0.transformer_blocks.0"
QUERY, CONTEXT = f"{UNET}.attn1.to_q", f"{UNET}.attn2.to_k"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV, TIME, PROJECTION = "up_blocks.0.resnets.0.conv1", "time_embedding.linear_1", "down_blocks.0.attentions.0.proj_in"
DOWNSAMPLER, UPSAMPLER = "down_blocks.0.downsamplers.0.conv", "up_blocks.0.upsamplers.0.conv"
LINEAR = (QUERY, CONTEXT, OUT)
ALL = (*LINEAR, CONV, TIME, PROJECTION, DOWNSAMPLER, UPSAMPLER)
TEXT = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.self_attn.out_proj", "encoder.layers.0.mlp.fc1")
Pair = tuple[torch.Tensor, torch.Tensor]
Namer = Callable[[str], str]


def layer(model: PipelineComponents, part: str, name: str) -> Any:
    layers = dict(model[part].named_modules())
    return layers.get(name) or layers[f"text_model.{name}"]


def pair(model: PipelineComponents, part: str, name: str, rank: int = RANK) -> Pair:
    """(down, up), of the layer's shape, the same each time."""
    weight = layer(model, part, name).weight
    numbers = torch.Generator().manual_seed(len(name) + rank)
    return (
        0.1 * torch.randn(rank, *weight.shape[1:], generator=numbers),
        0.1 * torch.randn(weight.shape[0], rank, *(1,) * (weight.ndim - 2), generator=numbers),
    )


def delta(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.einsum("or,ri...->oi...", up.flatten(1), down)


def assert_merged(view: PipelineComponents, part: str, deltas: Mapping[str, torch.Tensor]) -> None:
    """The layers with the LoRA are those whose weight is base + delta, and no others have changed."""
    with torch.no_grad(), active_loras(view, [part]):
        assert sum(hasattr(one, "base_layer") for one in view[part].modules()) == len(deltas)
        for name, added in deltas.items():
            adapted = layer(view, part, name)
            base = adapted.base_layer
            shape = (3, base.weight.shape[1], 5, 5) if base.weight.ndim == 4 else (3, base.weight.shape[1])
            given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            merged = torch.func.functional_call(base, {"weight": base.weight + added}, (given,))
            plain = base(given)
            assert (merged - plain).abs().max() > 1e-4, "a LoRA that changes nothing proves nothing"
            assert torch.allclose(adapted(given), merged, atol=2e-5 * float(merged.abs().max())), name


def put(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def open_lora(model: PipelineComponents, path: Path) -> PipelineComponents:
    return with_lora(model, path, title="my lora", strength=1.0, text_strength=1.0)


@cache
def original_names() -> dict[int, str]:
    """Where a weight is -> its name in the first published code, by the converter that makes the tests' checkpoints."""
    return {id(weight): name for name, weight in original_unet(unet_weights()).items()}


@cache
def unet_weights() -> dict[str, torch.Tensor]:
    return dict(load("sd15")["unet"].state_dict())


def original(name: str) -> str:
    found = original_names()[id(unet_weights()[f"{name}.weight"])]
    return found.removeprefix("model.diffusion_model.").removesuffix(".weight")


def old_processor(name: str) -> str:
    before, _, last = name.removesuffix(".0").rpartition(".")
    return f"{before}.processor.{last}_lora"


NAMINGS: dict[str, tuple[tuple[str, ...], Namer, str, str]] = {
    # naming: (the layers that it is used for, a layer's name, the ends of down and up)
    "kohya": (ALL, lambda name: f"lora_unet_{name.replace('.', '_')}", ".lora_down.weight", ".lora_up.weight"),
    "kohya, names of the first code": (
        ALL,
        lambda name: f"lora_unet_{original(name).replace('.', '_')}",
        ".lora_down.weight",
        ".lora_up.weight",
    ),
    "diffusers": (ALL, lambda name: f"unet.{name}", ".lora_A.weight", ".lora_B.weight"),
    "diffusers 0.20": (ALL, lambda name: f"unet.{name}", ".lora.down.weight", ".lora.up.weight"),
    "diffusers 0.17": (LINEAR, lambda name: f"unet.{old_processor(name)}", ".down.weight", ".up.weight"),
    "diffusers 0.12": (LINEAR, old_processor, ".down.weight", ".up.weight"),
    "PEFT": (ALL, lambda name: f"base_model.model.{name}", ".lora_A.weight", ".lora_B.weight"),
    "PEFT, with the adapter's name": (
        ALL,
        lambda name: f"base_model.model.unet.{name}",
        ".lora_A.default.weight",
        ".lora_B.default.weight",
    ),
    "ComfyUI's Save LoRA": (
        ALL,
        lambda name: f"diffusion_model.{original(name)}",
        ".lora_down.weight",
        ".lora_up.weight",
    ),
    "module.": (ALL, lambda name: f"module.unet.{name}", ".lora_A.weight", ".lora_B.weight"),
}
TEXT_NAMINGS: dict[str, tuple[Namer, str, str]] = {
    "kohya": (
        lambda name: f"lora_te_text_model_{name.replace('.', '_')}",
        ".lora_down.weight",
        ".lora_up.weight",
    ),
    "diffusers": (lambda name: f"text_encoder.text_model.{name}", ".lora_A.weight", ".lora_B.weight"),
    "transformers 5": (lambda name: f"text_encoder.{name}", ".lora_A.weight", ".lora_B.weight"),
    "diffusers 0.20": (
        lambda name: f"text_encoder.text_model.{name}",
        ".lora_linear_layer.down.weight",
        ".lora_linear_layer.up.weight",
    ),
    "PEFT": (lambda name: f"base_model.model.text_model.{name}", ".lora_A.weight", ".lora_B.weight"),
    "ComfyUI's Save LoRA": (
        lambda name: f"text_encoders.clip_l.transformer.text_model.{name}",
        ".lora_down.weight",
        ".lora_up.weight",
    ),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_each_naming_of_the_denoiser_is_the_merge_by_hand(naming: str, tmp_path: Path) -> None:
    layers, name_of, down_end, up_end = NAMINGS[naming]
    model, tensors, deltas = load("sd15"), {}, {}
    for name in layers:
        down, up = pair(model, "unet", name)
        tensors |= {name_of(name) + down_end: down, name_of(name) + up_end: up}
        deltas[name] = delta(down, up)
    assert_merged(open_lora(model, put(tmp_path / "x.safetensors", tensors)), "unet", deltas)


@pytest.mark.parametrize("naming", TEXT_NAMINGS)
def test_each_naming_of_the_text_encoder_is_the_merge_by_hand(naming: str, tmp_path: Path) -> None:
    name_of, down_end, up_end = TEXT_NAMINGS[naming]
    model, tensors, deltas = load("sd15"), {}, {}
    for name in TEXT:
        down, up = pair(model, "text_encoder", name)
        tensors |= {name_of(name) + down_end: down, name_of(name) + up_end: up}
        deltas[name] = delta(down, up)
    assert_merged(open_lora(model, put(tmp_path / "x.safetensors", tensors)), "text_encoder", deltas)


def kohya(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}"


def test_ranks_and_alphas_of_each_layer(tmp_path: Path) -> None:
    model, tensors, deltas = load("sd15"), {}, {}
    for index, name in enumerate(ALL):
        rank, alpha = (2, 5, 16)[index % 3], (1.0, 5.0, 3.0, 16.0)[index % 4]
        down, up = pair(model, "unet", name, rank)
        tensors |= {f"{kohya(name)}.lora_down.weight": down, f"{kohya(name)}.lora_up.weight": up}
        if index != 1:  # a layer with none: alpha is its rank
            tensors[f"{kohya(name)}.alpha"] = torch.tensor(alpha)
        deltas[name] = delta(down, up) * (1.0 if index == 1 else alpha / rank)
    assert_merged(open_lora(model, put(tmp_path / "x.safetensors", tensors)), "unet", deltas)


@pytest.mark.parametrize("name", [QUERY, PROJECTION])
def test_weights_of_a_one_by_one_convolution_are_those_of_a_linear_layer(name: str, tmp_path: Path) -> None:
    model = load("sd15")
    down, up = pair(model, "unet", name)
    other = (down.flatten(1), up.flatten(1)) if down.ndim == 4 else (down[..., None, None], up[..., None, None])
    tensors = {f"unet.{name}.lora_A.weight": other[0], f"unet.{name}.lora_B.weight": other[1]}
    assert_merged(open_lora(model, put(tmp_path / "x.safetensors", tensors)), "unet", {name: delta(down, up)})


def test_a_convolution_in_three_parts(tmp_path: Path) -> None:
    """LoCon with use_tucker: out x rank, rank x rank x k x k, rank x in."""
    model = load("sd15")
    weight = layer(model, "unet", CONV).weight
    up, mid, down = (
        torch.randn(weight.shape[0], 4, 1, 1),
        0.1 * torch.randn(4, 4, 3, 3),
        torch.randn(4, weight.shape[1], 1, 1),
    )
    tensors = {f"{kohya(CONV)}.lora_{role}.weight": t for role, t in (("up", up), ("mid", mid), ("down", down))}
    merged = torch.einsum("or,rskl,si->oikl", up[..., 0, 0], mid, down[..., 0, 0])
    view = open_lora(model, put(tmp_path / "x.safetensors", tensors | {f"{kohya(CONV)}.alpha": torch.tensor(2.0)}))
    assert_merged(view, "unet", {CONV: 0.5 * merged})


@pytest.mark.parametrize("as_kohya", [True, False], ids=["kohya", "diffusers"])
@pytest.mark.parametrize("name", [CONTEXT, OUT])
def test_a_dora_is_the_merge_by_hand(name: str, as_kohya: bool, tmp_path: Path) -> None:
    model = load("sd15")
    down, up = pair(model, "unet", name)
    weight = layer(model, "unet", name).weight
    lengths = torch.rand(weight.shape[0]) + 0.5
    directions = weight + delta(down, up)
    wanted = lengths[:, None] * directions / directions.norm(dim=1, keepdim=True)
    if as_kohya:
        tensors = {f"{kohya(name)}.lora_down.weight": down, f"{kohya(name)}.lora_up.weight": up}
        tensors[f"{kohya(name)}.dora_scale"] = lengths[:, None]
    else:
        tensors = {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
        tensors[f"unet.{name}.lora_magnitude_vector"] = lengths
    plain = pair(model, "unet", QUERY)  # beside a layer that is none
    tensors |= {f"unet.{QUERY}.lora_A.weight": plain[0], f"unet.{QUERY}.lora_B.weight": plain[1]}
    view = open_lora(model, put(tmp_path / "x.safetensors", tensors))
    assert_merged(view, "unet", {name: wanted - weight, QUERY: delta(*plain)})


def test_of_the_metadata_alpha_counts_and_nothing_else(tmp_path: Path) -> None:
    model = load("sd15")
    first, second = pair(model, "unet", QUERY), pair(model, "unet", CONTEXT)
    tensors = {f"unet.{QUERY}.lora_A.weight": first[0], f"unet.{QUERY}.lora_B.weight": first[1]}
    tensors |= {f"unet.{CONTEXT}.lora_A.weight": second[0], f"unet.{CONTEXT}.lora_B.weight": second[1]}
    config = {
        "r": 64,
        "lora_alpha": 8,
        "alpha_pattern": {f"^{CONTEXT}": 1},
        "target_modules": "(((a+)+)+)+$",
        "lora_dropout": 0.9,
        "bias": "all",
        "init_lora_weights": "gaussian",
        "fan_in_fan_out": True,
        "modules_to_save": ["conv_in"],
        "megatron_core": "antigravity",
        "base_model_name_or_path": "someone/else",
    }
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in config.items()})}
    view = open_lora(model, put(tmp_path / "x.safetensors", tensors, metadata))
    found = {name: parameter.requires_grad for name, parameter in model["unet"].named_parameters()}
    assert_merged(view, "unet", {QUERY: 2.0 * delta(*first), CONTEXT: 0.25 * delta(*second)})
    with active_loras(view, ["unet"]):
        assert not any(module.training for module in view["unet"].modules())
    assert {name: parameter.requires_grad for name, parameter in model["unet"].named_parameters()} == found


def test_what_a_parameter_asked_for_is_as_it_was_found(tmp_path: Path) -> None:
    model = load("sd15")
    down, up = pair(model, "unet", QUERY)
    view = open_lora(
        model, put(tmp_path / "x.safetensors", {f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up})
    )
    bias = model["unet"].conv_in.bias
    bias.requires_grad_(True)
    try:
        with active_loras(view, ["unet"]):
            pass
        assert bias.requires_grad
    finally:
        bias.requires_grad_(False)


def good(model: PipelineComponents | None = None) -> dict[str, torch.Tensor]:
    down, up = pair(model or load("sd15"), "unet", QUERY)
    return {f"{kohya(QUERY)}.lora_down.weight": down, f"{kohya(QUERY)}.lora_up.weight": up}


def with_ends(*ends: str) -> dict[str, torch.Tensor]:
    return {**good(), **{f"{kohya(CONTEXT)}{end}": torch.ones(1, 1) for end in ends}}


BROKEN: dict[str, tuple[Callable[[], dict[str, torch.Tensor]], str]] = {
    "LoHa": (lambda: with_ends(".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b"), "is a LoHa"),
    "LoKr": (lambda: with_ends(".lokr_w1", ".lokr_w2"), "is a LoKr"),
    "OFT": (lambda: with_ends(".oft_blocks"), "is an OFT or BOFT"),
    "GLoRA": (lambda: with_ends(".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"), "is a GLoRA"),
    "IA3": (lambda: with_ends(".on_input", ".weight"), "is an IA3"),
    "full differences": (lambda: {f"{kohya(CONTEXT)}.diff": torch.ones(2, 2)}, "is a set of full weight differences"),
    "a bias too": (lambda: with_ends(".diff_b"), "a LoRA that also changes biases or norms"),
    "a norm too": (lambda: with_ends(".w_norm", ".b_norm"), "a LoRA that also changes biases or norms"),
    "PEFT's bias": (lambda: {**good(), f"unet.{QUERY}.lora_B.bias": torch.ones(1)}, "also changes biases or norms"),
    "lora_diffusion": (lambda: {"unet:0:up": torch.ones(2, 2), "unet:0:down": torch.ones(2, 2)}, "lora_diffusion"),
    "Control-LoRA": (lambda: {**good(), "lora_controlnet": torch.ones(1)}, "is a Control-LoRA"),
    "half of it": (lambda: dict(list(good().items())[:1]), "has no up weights for 1 of its 1 layers"),
    "ranks that differ": (lambda: {**good(), f"{kohya(QUERY)}.lora_up.weight": torch.ones(32, 5)}, "ranks that do not agree: 5 and 4"),
    "no values": (lambda: {**good(), f"{kohya(QUERY)}.lora_up.weight": torch.ones(32, 0)}, r"shapes \[4, 32\] and \[32, 0\]"),
    "whole numbers": (lambda: {key: value.to(torch.int8) for key, value in good().items()}, "of int8"),
    "burnt": (lambda: {key: value * torch.nan for key, value in good().items()}, "not numbers .*the training of this LoRA went wrong"),
    "several alphas": (lambda: {**good(), f"{kohya(QUERY)}.alpha": torch.ones(4)}, "has 4 alphas"),
    "an alpha that is no number": (lambda: {**good(), f"{kohya(QUERY)}.alpha": torch.tensor(torch.inf)}, "not numbers"),
    "twice": (lambda: {**good(), **{f"unet.{QUERY}.lora_{end}.weight": torch.ones(shape) for end, shape in (("A", (4, 32)), ("B", (32, 4)))}}, "twice"),
    "another layer": (lambda: {"unet.mid_block.nowhere.lora_A.weight": torch.ones(1, 1), **good()}, "1 of its 2 layers are not there, such as unet.mid_block.nowhere"),
    "inputs' lengths": (lambda: {**good(), f"{kohya(QUERY)}.dora_scale": torch.ones(1, 32)}, "is a DoRA whose lengths are those of the inputs"),
    "Flux": (lambda: {f"lora_unet_double_blocks_0_img_attn_qkv.lora_{end}.weight": torch.ones(4, 4) for end in ("down", "up")}, "is made for Flux and does not fit sd15"),
    "nothing that tells": (lambda: {f"lora_unet_other_block.lora_{end}.weight": torch.ones(4, 4) for end in ("down", "up")}, "lora: my lora does not fit sd15"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_can_not_be_loaded_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    make, words = BROKEN[name]
    with pytest.raises(RelayError, match=words) as caught:
        open_lora(load("sd15"), put(tmp_path / "x.safetensors", make()))
    assert len(str(caught.value)) < 400
    assert str(caught.value).startswith("lora: my lora")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[1]", "its lora_adapter_metadata can't be read"),
        ('{"unet.lora_alpha": "8"}', "can't be read"),
        ('{"unet.lora_alpha": NaN}', "can't be read"),
        (
            '{"unet.alpha_pattern": {"(((a+)+)+)+$": 8}}',
            "alpha_pattern in its metadata names 1 layers that the file has not",
        ),
    ],
)
def test_metadata_that_is_not_alpha_s(config: str, words: str, tmp_path: Path) -> None:
    path = put(tmp_path / "x.safetensors", good(), {"lora_adapter_metadata": config})
    with pytest.raises(RelayError, match=words):
        open_lora(load("sd15"), path)


def test_many_keys_and_odd_names_take_no_time(tmp_path: Path) -> None:
    names = [f"lora_unet_{'a' * 60}{index}(((a+)+)+)+$" for index in range(20_000)]
    tensors = {f"{name}.lora_{end}.weight": torch.ones(1, 1) for name in names for end in ("down", "up")}
    path = put(tmp_path / "x.safetensors", tensors)
    with pytest.raises(RelayError, match="20000 of its 20000 layers are not there"):
        open_lora(load("sd15"), path)


def test_what_the_user_should_know_is_noted(tmp_path: Path) -> None:
    model = load("sd15")
    bundled = {**good(), "bundle_emb.my-word.string_to_param.*": torch.ones(2, 32)}
    (note,) = open_lora(model, put(tmp_path / "a.safetensors", bundled)).loras[0].weights.notes
    assert "my-word" in note
    down, up = pair(model, "unet", QUERY)
    from_peft = {f"base_model.model.{QUERY}.lora_A.weight": down, f"base_model.model.{QUERY}.lora_B.weight": up}
    (note,) = open_lora(model, put(tmp_path / "b.safetensors", from_peft)).loras[0].weights.notes
    assert "alpha" in note
    assert open_lora(model, put(tmp_path / "c.safetensors", good())).loras[0].weights.notes == ()


def test_eight_bits_are_widened(tmp_path: Path) -> None:
    model = load("sd15")
    down, up = (tensor.to(torch.float8_e4m3fn) for tensor in pair(model, "unet", QUERY))
    tensors = {f"{kohya(QUERY)}.lora_down.weight": down, f"{kohya(QUERY)}.lora_up.weight": up}
    view = open_lora(model, put(tmp_path / "x.safetensors", tensors))
    assert_merged(view, "unet", {QUERY: delta(down.float(), up.float())})
