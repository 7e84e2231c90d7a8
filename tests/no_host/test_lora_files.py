"""LoRA files in trainers' formats: each gives the same layers as a merge by hand, or an error that says what the file is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from diffusers_relay.pipelines.adapters.lora import active_loras, with_lora
from diffusers_relay.pipelines.adapters.lora_formats import own_kind
from diffusers_relay.pipelines.adapters.lora_names import places
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.model.components import PipelineComponents
from small_models.native_checkpoint import original_unet
from support.lora_files import CONTEXT, QUERY, assert_merged, delta, kohya, layer, open_lora, pair, put
from support.without_host import load

OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV, TIME, PROJECTION = "up_blocks.0.resnets.0.conv1", "time_embedding.linear_1", "down_blocks.0.attentions.0.proj_in"
DOWNSAMPLER, UPSAMPLER = "down_blocks.0.downsamplers.0.conv", "up_blocks.0.upsamplers.0.conv"
LINEAR = (QUERY, CONTEXT, OUT)
ALL = (*LINEAR, CONV, TIME, PROJECTION, DOWNSAMPLER, UPSAMPLER)
TEXT = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.self_attn.out_proj", "encoder.layers.0.mlp.fc1")
Namer = Callable[[str], str]


@cache
def original_names() -> dict[int, str]:
    """{id of a weight tensor: its name in the original code}, from the converter that makes the tests' checkpoints."""
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
    # {naming: (layers that use it, function for a layer's name, suffixes of down and up)}
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
    "PEFT, with another name": (
        ALL,
        lambda name: f"unet.base_model.model.{name}",
        ".lora_A.my_style.weight",
        ".lora_B.my_style.weight",
    ),
    "PEFT, below unet": (ALL, lambda name: f"unet.base_model.model.{name}", ".lora_A.weight", ".lora_B.weight"),
    "LyCORIS": (ALL, lambda name: f"lycoris_{name.replace('.', '_')}", ".lora_down.weight", ".lora_up.weight"),
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
    "PEFT, below text_encoder": (
        lambda name: f"text_encoder.base_model.model.text_model.{name}",
        ".lora_A.weight",
        ".lora_B.weight",
    ),
    "LyCORIS": (
        lambda name: f"lycoris_text_model_{name.replace('.', '_')}",
        ".lora_down.weight",
        ".lora_up.weight",
    ),
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


UPSAMPLERS = {
    # {(model, name in the file): layer}, by hand: the original code's block numbers, counted from the middle outwards
    ("sdxl_base", "lora_unet_output_blocks_1_2_conv"): UPSAMPLER,  # after an attention
    ("sdxl_base", "diffusion_model.output_blocks.1.2.conv"): UPSAMPLER,
    ("sdxl_refiner", "lora_unet_output_blocks_1_2_conv"): UPSAMPLER,
    ("sd15", "diffusion_model.output_blocks.1.1.conv"): UPSAMPLER,  # without attention before it
    ("sd15", "lora_unet_output_blocks_1_1_conv"): UPSAMPLER,
    ("sdxl_base", "lora_unet_input_blocks_2_0_op"): DOWNSAMPLER,
    ("sdxl_base", "lora_unet_label_emb_0_2"): "add_embedding.linear_2",
}


@pytest.mark.parametrize(("model_name", "name"), UPSAMPLERS)
def test_samplers_of_the_first_code_are_the_merge_by_hand(model_name: str, name: str, tmp_path: Path) -> None:
    model, place = load(model_name), UPSAMPLERS[model_name, name]
    down, up = pair(model, "unet", place)
    path = put(tmp_path / "x.safetensors", {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up})
    assert_merged(open_lora(model, path), "unet", {place: delta(down, up)})


@pytest.mark.parametrize("model_name", ["sd15", "sdxl_base", "sdxl_refiner"])
def test_names_of_the_first_code_are_those_of_diffusers_own_converter(model_name: str) -> None:
    """Converts a checkpoint with our names and one number per layer to diffusers' state, where each number must be at its layer."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = load(model_name)["unet"]
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
    layers = [name for name, one in unet.named_modules() if isinstance(one, kinds)]
    table = places({"unet": unet}, "unet", ())
    ours: dict[str, str] = {}
    for name, place in table.items():
        if name.startswith(("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")):
            assert place.layer not in ours, "a layer has one name in the original code"
            ours[place.layer] = name
    assert set(ours) == set(layers)
    numbers = {name: torch.tensor(float(index)) for index, name in enumerate(layers)}
    checkpoint = {
        f"model.diffusion_model.{ours[name]}.{part}": numbers[name] for name in layers for part in ("weight", "bias")
    }
    converted = convert_ldm_unet_checkpoint(checkpoint, dict(unet.config))
    assert {name: converted[f"{name}.weight"] for name in layers} == numbers


def test_ranks_and_alphas_of_each_layer(tmp_path: Path) -> None:
    model, tensors, deltas = load("sd15"), {}, {}
    for index, name in enumerate(ALL):
        rank, alpha = (2, 5, 16)[index % 3], (1.0, 5.0, 3.0, 16.0)[index % 4]
        down, up = pair(model, "unet", name, rank)
        tensors |= {f"{kohya(name)}.lora_down.weight": down, f"{kohya(name)}.lora_up.weight": up}
        if index != 1:  # a layer without alpha: alpha is the rank
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
    plain = pair(model, "unet", QUERY)  # next to a layer without DoRA
    tensors |= {f"unet.{QUERY}.lora_A.weight": plain[0], f"unet.{QUERY}.lora_B.weight": plain[1]}
    view = open_lora(model, put(tmp_path / "x.safetensors", tensors))
    assert_merged(view, "unet", {name: wanted - weight, QUERY: delta(*plain)})


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


def flat_pair(name: str) -> dict[str, torch.Tensor]:
    """kohya's format, but with a convolution's first half as one matrix."""
    down, up = pair(load("sd15"), "unet", name)
    return {f"{kohya(name)}.lora_down.weight": down.flatten(1), f"{kohya(name)}.lora_up.weight": up.flatten(1)}


def peft_pair(name: str) -> dict[str, torch.Tensor]:
    down, up = pair(load("sd15"), "unet", name)
    return {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}


BROKEN: dict[str, tuple[Callable[[], dict[str, torch.Tensor]], str]] = {
    "GLoRA": (lambda: with_ends(".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"), "is a GLoRA"),
    "IA3": (lambda: with_ends(".on_input", ".weight"), "is an IA3"),
    "PEFT's bias": (lambda: {**good(), f"unet.{QUERY}.lora_B.bias": torch.ones(1)}, "is a LoRA with biases of its own"),
    "weights": (lambda: with_ends(".set_weight"), "is a file that replaces weights"),
    "lora_diffusion": (lambda: {"unet:0:up": torch.ones(2, 2), "unet:0:down": torch.ones(2, 2)}, "lora_diffusion"),
    "Control-LoRA": (lambda: {**good(), "lora_controlnet": torch.ones(1)}, "is a Control-LoRA"),
    "half of it": (lambda: dict(list(good().items())[:1]), "has no up weights for 1 of its 1 layers"),
    "ranks that differ": (lambda: {**good(), f"{kohya(QUERY)}.lora_up.weight": torch.ones(32, 5)}, "different ranks: 5 and 4"),
    "no values": (lambda: {**good(), f"{kohya(QUERY)}.lora_up.weight": torch.ones(32, 0)}, r"shapes \[4, 32\] and \[32, 0\]"),
    "whole numbers": (lambda: {key: value.to(torch.int8) for key, value in good().items()}, "of type int8"),
    "burnt": (lambda: {key: value * torch.nan for key, value in good().items()}, "NaN or infinite .*the training of this LoRA went wrong"),
    "several alphas": (lambda: {**good(), f"{kohya(QUERY)}.alpha": torch.ones(4)}, "has 4 alphas"),
    "an alpha that is no number": (lambda: {**good(), f"{kohya(QUERY)}.alpha": torch.tensor(torch.inf)}, "NaN or infinite"),
    "twice": (lambda: {**good(), **{f"unet.{QUERY}.lora_{end}.weight": torch.ones(shape) for end, shape in (("A", (4, 32)), ("B", (32, 4)))}}, "twice"),
    "not for a layer": (lambda: {"unet.mid_block.nowhere.lora_A.weight": torch.ones(1, 1), **good()}, "which lacks 1 of its 2 layers, such as unet.mid_block.nowhere"),
    "too few lengths": (lambda: {**good(), f"{kohya(QUERY)}.dora_scale": torch.ones(5, 1)}, "has a DoRA magnitude vector with 5 values, but the layer has 32 outputs"),
    "PEFT's lengths": (lambda: {**good(), f"unet.{QUERY}.lora_magnitude_vector": torch.ones(5), **peft_pair(QUERY)}, "twice"),
    "lengths twice": (lambda: {**good(), f"{kohya(QUERY)}.dora_scale": torch.ones(32, 1), f"{kohya(QUERY)}.lora_magnitude_vector": torch.ones(32)}, "two DoRA magnitude vectors"),
    "two adapters": (lambda: {f"unet.{QUERY}.lora_A.{one}.weight": torch.ones(4, 32) for one in ("first", "second")}, "twice, also as .*lora_A.second.weight"),
    "an alpha that is too much": (lambda: {**good(), f"{kohya(QUERY)}.alpha": torch.tensor(3e38) , f"{kohya(QUERY)}.lora_up.weight": torch.ones(32, 4) * 100}, "overflow when multiplied by its alpha"),
    "a checkpoint": (lambda: {"first_stage_model.decoder.conv_in.weight": torch.ones(1)}, r"^lora: my lora is a complete checkpoint, which Load LoRA \(Diffusers\) can't load. Put it into models/checkpoints and use Load Diffusers Model.$"),
    "an embedding": (lambda: {"emb_params": torch.ones(2, 32)}, "is a textual inversion, which .* Put it into models/embeddings and use Load Textual Inversion"),
    "a ControlNet": (lambda: {"control_model.zero_convs.0.0.weight": torch.ones(1)}, "is a ControlNet, which .* Put it into models/controlnet and use Load ControlNet"),
    "Flux": (lambda: {f"lora_unet_double_blocks_0_img_attn_qkv.lora_{end}.weight": torch.ones(4, 4) for end in ("down", "up")}, "was made for Flux and does not fit sd15"),
    "nothing that tells": (lambda: {f"lora_unet_other_block.lora_{end}.weight": torch.ones(4, 4) for end in ("down", "up")}, "lora: my lora does not fit sd15"),
}  # fmt: skip


UNUSUAL = "odd\nname\x1b[31m\u202e" + 5000 * "x"


@pytest.mark.parametrize(
    "key",
    [
        f"{UNUSUAL}.lora_down.weight",
        UNUSUAL,
        f"unet.{UNUSUAL}.to_q.lora_A.weight",
        f"{UNUSUAL}.alpha",
    ],
    ids=["no layer", "no LoRA's", "PEFT", "a half"],
)
def test_names_in_messages_are_one_short_line(key: str, tmp_path: Path) -> None:
    tensors = {**good(), key: torch.ones(1, 1)}
    with pytest.raises(RelayError, match=r"^lora: my lora") as caught:
        open_lora(load("sd15"), put(tmp_path / "x.safetensors", tensors))
    message = str(caught.value)
    assert len(message) < 400
    assert message.isprintable()
    assert r"odd\nname\x1b[31m\u202e" in message


@pytest.mark.parametrize("name", [CONV, DOWNSAMPLER, PROJECTION])
def test_a_convolution_saved_as_one_matrix(name: str, tmp_path: Path) -> None:
    model = load("sd15")
    view = open_lora(model, put(tmp_path / "x.safetensors", flat_pair(name)))
    assert_merged(view, "unet", {name: delta(*pair(model, "unet", name))})


@pytest.mark.parametrize("what", ["lora_up.weight", "lora_down.weight", "alpha", "dora_scale"])
def test_values_that_the_model_s_type_can_not_hold(what: str, tmp_path: Path) -> None:
    """Twice float16's maximum: in float16, the LoRA is rejected; in float32, the result equals a merge by hand."""
    down, up = pair(load("sd15"), "unet", QUERY)
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(4.0)}
    if what == "alpha":
        tensors["alpha"] = 4 * 131_008 / up.abs().max()
    elif what == "dora_scale":
        tensors[what] = torch.ones(32, 1).index_fill(0, torch.tensor(3), 131_008)
    else:
        tensors[what].view(-1)[7] = 131_008
    path = put(tmp_path / "x.safetensors", {f"{kohya(QUERY)}.{end}": tensor for end, tensor in tensors.items()})
    view = open_lora(load("sd15"), path)
    assert view.loras[0].weights.largest == {"unet": pytest.approx(131_008)}
    if what != "dora_scale":
        assert_merged(
            view, "unet", {QUERY: delta(tensors["lora_down.weight"], tensors["lora_up.weight"]) * tensors["alpha"] / 4}
        )
    open_lora(load("sd15", torch.bfloat16), path)
    half = load("sd15", torch.float16)
    with pytest.raises(
        RelayError,
        match=r"^lora: my lora has values up to 1.31e\+05, but sd15 .* in float16 only reaches 65504. Load the model with dtype bfloat16 or float32",
    ):
        open_lora(half, path)
    with_lora(half, path, title="of no strength", strength=0.0, text_strength=1.0)


def test_alpha_that_makes_more_than_the_file_s_type_holds(tmp_path: Path) -> None:
    """A float16 file whose product with alpha exceeds float16, in a float32 model."""
    model = load("sd15")
    down, up = (tensor.half() for tensor in pair(model, "unet", QUERY))
    tensors = {
        f"{kohya(QUERY)}.lora_down.weight": down / 1000,
        f"{kohya(QUERY)}.lora_up.weight": up * 1000,
        f"{kohya(QUERY)}.alpha": torch.tensor(4000.0),
    }
    view = open_lora(model, put(tmp_path / "x.safetensors", tensors))
    assert_merged(view, "unet", {QUERY: 1000 * delta((down / 1000).float(), (up * 1000).float())})


@pytest.mark.parametrize(
    ("width", "kind"),
    [
        (768, "Stable Diffusion 1.x"),
        (1024, "Stable Diffusion 2.x"),
        (1280, "the SDXL refiner"),
        (2048, "SDXL"),
        (640, ""),
    ],
)
@pytest.mark.parametrize("naming", ["kohya", "diffusers", "diffusers 0.20", "diffusers 0.17", "PEFT"])
def test_a_lora_of_another_width_is_called_what_it_was_made_for(
    naming: str, width: int, kind: str, tmp_path: Path
) -> None:
    _, name_of, down_end, up_end = NAMINGS[naming]
    tensors = {name_of(CONTEXT) + down_end: torch.ones(4, width), name_of(CONTEXT) + up_end: torch.ones(32, 4)}
    with pytest.raises(RelayError, match="does not fit sd15") as caught:
        open_lora(load("sd15"), put(tmp_path / "x.safetensors", tensors))
    assert ("was made for" in str(caught.value)) == bool(kind)
    assert str(caught.value).startswith(
        f"lora: my lora was made for {kind} and " if kind else "lora: my lora does not fit"
    )


def test_a_lora_for_this_kind_that_has_one_layer_more_is_not_called_another_kind_s(tmp_path: Path) -> None:
    model = load("sdxl_base")
    names = ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "lora_unet_mid_block_nowhere")
    tensors = {f"{name}.lora_{end}.weight": torch.ones(4, 4) for name in names for end in ("down", "up")}
    with pytest.raises(RelayError, match=r"^lora: my lora does not fit sdxl_base .*, which lacks 1 of its 2 layers"):
        open_lora(model, put(tmp_path / "x.safetensors", tensors))
    assert (
        own_kind({"unet": SimpleNamespace(config=SimpleNamespace(cross_attention_dim=1024))}) == "Stable Diffusion 2.x"
    )


@pytest.mark.parametrize("name", BROKEN)
def test_what_can_not_be_loaded_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    make, words = BROKEN[name]
    with pytest.raises(RelayError, match=words) as caught:
        open_lora(load("sd15"), put(tmp_path / "x.safetensors", make()))
    assert len(str(caught.value)) < 400
    assert str(caught.value).startswith("lora: my lora")


def test_many_keys_and_odd_names_take_no_time(tmp_path: Path) -> None:
    names = [f"lora_unet_{'a' * 60}{index}(((a+)+)+)+$" for index in range(20_000)]
    tensors = {f"{name}.lora_{end}.weight": torch.ones(1, 1) for name in names for end in ("down", "up")}
    path = put(tmp_path / "x.safetensors", tensors)
    with pytest.raises(RelayError, match="which lacks 20000 of its 20000 layers"):
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
