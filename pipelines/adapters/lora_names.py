"""Maps the names that trainers give to a LoRA's layers to the model's own layers.

A name is either in the table of the model's layers or unknown; nothing is guessed from shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ENDS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A": "down",
    ".lora_B": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector": "magnitude",
    ".dora_scale": "dora_scale",
    **{f".hada_{part}": f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f".lokr_{part}": f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    **{f".{part}": part for part in ("oft_blocks", "rescale", "diff", "diff_b", "w_norm", "b_norm")},
    ".lora_alpha": "alpha",
    ".lora.alpha": "alpha",
    ".alpha": "alpha",
}
"""Ending of a tensor's name -> its role. DoRA's magnitude vector is ``magnitude`` in PEFT's shapes and ``dora_scale`` in LyCORIS'."""
PEFT_MARKS = {".lora_A.": "down", ".lora_B.": "up", ".lora_magnitude_vector.": "magnitude"}
"""PEFT's state dict has the adapter's name between one of these and ``weight``."""
WRAPPERS = ("module.", "base_model.model.", "model.diffusion_model.", "diffusion_model.")
"""Prefixes that PEFT, ComfyUI's Save LoRA Weights and training wrappers put before a name, or after the component's name."""
HOST_ENCODERS = (
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "text_encoders.clip_h.transformer.",
)
"""ComfyUI's names for the text encoders; clip_g is the second text encoder of SDXL and the only one of its refiner."""
OF_ENCODERS = (
    "lora_te",
    "text_encoder",
    "text_model.",
    "encoder.layers.",
    "lycoris_text_model_",
    "lycoris_encoder_layers_",
)
"""Starts of the names of layers of text encoders, in every format above."""
ORIGINAL_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ORIGINAL_UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
KOHYA_UNET = ("lora_unet_", "lycoris_", "oft_unet_")
"""kohya's prefixes for the UNet. The last is that of its own OFT, which has no text encoder."""
OLD_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "out_proj"}
"""Early diffusers' names for the attention layers of a text encoder -> current names."""


class Place(NamedTuple):
    component: str
    layer: str


def split(key: str) -> tuple[str, str]:
    """(Name of the layer in the file, role of the tensor); the role is empty if the name is not known."""
    for end, role in ENDS.items():
        if key.endswith(end):
            return key.removesuffix(end), role
    for mark, role in PEFT_MARKS.items():
        layer, found, rest = key.rpartition(mark)
        adapter = rest.removesuffix(".weight")
        if found and "." not in adapter and (adapter != rest or adapter == "default" or role == "magnitude"):
            return layer, role
    return key, ""


def places(modules: Mapping[str, Any], denoiser: str, encoders: tuple[str, ...]) -> dict[str, Place]:
    """Every name that a file may use for a layer of the model -> the layer.

    Args:
        modules: component -> module, for the denoiser and the text encoders.
        denoiser: name of the denoiser component.
        encoders: names of the text encoder components, in order.
    """
    found: dict[str, Place] = {}
    for component in (denoiser, *encoders):
        layers = [name for name, layer in modules[component].named_modules() if _takes_changes(layer)]
        spell = (
            _denoiser_names(modules[component], layers)
            if component == denoiser
            else _encoder_names(component, layers, encoders)
        )
        for layer, names in spell.items():
            for name in names:
                found.setdefault(name, Place(component, layer))
    return found


def _takes_changes(layer: Any) -> bool:
    """Whether a file can change the layer: it is linear, a convolution, or a norm with weights."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
    return isinstance(layer, kinds) and layer.weight is not None


def place_of(name: str, table: Mapping[str, Place]) -> Place | None:
    """The layer that ``name`` in a file refers to; None if there is no such layer."""
    while name not in table:
        wrapper = next((prefix for prefix in WRAPPERS if f".{prefix}" in f".{name}"), None)
        if wrapper is None:
            return None
        name = f".{name}".replace(f".{wrapper}", ".", 1)[1:]
    return table[name]


def is_of_encoder(name: str) -> bool:
    """Whether ``name`` in a file is that of a layer of a text encoder."""
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name.startswith(OF_ENCODERS)


def _denoiser_names(unet: Any, layers: list[str]) -> dict[str, list[str]]:
    original = _original_starts(unet.config)
    names = {}
    for layer in layers:
        dotted = [layer, *([other] if (other := _in_original(layer, original)) else [])]
        names[layer] = [
            *(f"unet.{name}" for name in dotted),
            *dotted,
            *(f"{start}{name.replace('.', '_')}" for name in dotted for start in KOHYA_UNET),
            *_of_old_processors(layer, ("", "unet.")),
        ]
    return names


def _encoder_names(component: str, layers: list[str], encoders: tuple[str, ...]) -> dict[str, list[str]]:
    number = 2 if component.endswith("_2") else 1
    kohya = [f"lora_te{number}_"] if component.endswith("_2") or len(encoders) > 1 else ["lora_te_", "lora_te1_"]
    host = HOST_ENCODERS[1:2] if component.endswith("_2") else (HOST_ENCODERS[0], HOST_ENCODERS[2])
    names = {}
    for layer in layers:
        bare = layer.removeprefix("text_model.")
        spelled = [f"text_model.{bare}", bare]
        old = next((early for early, current in OLD_ATTENTION.items() if bare.endswith(f".self_attn.{current}")), None)
        if old is not None:
            before = bare.removesuffix(OLD_ATTENTION[old])
            spelled += [
                name for start in (before, f"text_model.{before}") for name in _of_old_processors(start + old, ("",))
            ]
            spelled += [f"text_model.{before}{old.removesuffix('.0')}", f"{before}{old.removesuffix('.0')}"]
        names[layer] = [
            *(f"{start}{name}" for name in spelled for start in (f"{component}.", *host)),
            *(f"{start}{name.replace('.', '_')}" for name in spelled[:2] for start in kohya),
            # PEFT saves an encoder without a prefix: assume the model's first
            *(spelled if component == encoders[0] else ()),
            *(f"lycoris_{name.replace('.', '_')}" for name in spelled[:2] if component == encoders[0]),
        ]
    return names


def _of_old_processors(layer: str, starts: tuple[str, ...]) -> list[str]:
    """``attn1.to_q`` was ``attn1.processor.to_q`` (and then ``_lora``) before diffusers 0.22; ``to_out.0`` was ``to_out``."""
    before, _, last = layer.removesuffix(".0").rpartition(".")
    if last not in ("to_q", "to_k", "to_v", "to_out"):
        return []
    return [f"{start}{before}.{middle}{last}" for start in starts for middle in ("processor.", "")]


def _original_starts(config: Mapping[str, Any]) -> dict[str, str]:
    """Blocks of diffusers' UNet -> those of the original code, which numbers all blocks of a side in one sequence."""
    starts = dict(ORIGINAL_UNET)
    layers = config["layers_per_block"]
    if not isinstance(layers, int):
        return starts
    for side, blocks, count in (("down", "input", layers), ("up", "output", layers + 1)):
        for index, kind in enumerate(config[f"{side}_block_types"]):
            first = index * (layers + 1) + (1 if side == "down" else 0)
            for layer in range(count):
                starts[f"{side}_blocks.{index}.resnets.{layer}"] = f"{blocks}_blocks.{first + layer}.0"
                starts[f"{side}_blocks.{index}.attentions.{layer}"] = f"{blocks}_blocks.{first + layer}.1"
            if side == "down":
                starts[f"down_blocks.{index}.downsamplers.0.conv"] = f"input_blocks.{first + layers}.0.op"
            else:
                place = 2 if "Attn" in kind else 1
                starts[f"up_blocks.{index}.upsamplers.0.conv"] = f"output_blocks.{first + layers}.{place}.conv"
    return starts


def _in_original(layer: str, starts: Mapping[str, str]) -> str | None:
    if layer in starts:
        return starts[layer]
    parts = layer.split(".")
    for length in (4, 3, 2):
        start, rest = ".".join(parts[:length]), ".".join(parts[length:])
        if start in starts:
            if ".resnets." in f".{start}.":
                return f"{starts[start]}.{ORIGINAL_RESNET[rest]}" if rest in ORIGINAL_RESNET else None
            return f"{starts[start]}.{rest}"
    return None
