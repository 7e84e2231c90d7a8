"""Reads the sizes of a UNet or ControlNet from the shapes of its tensors; diffusers' config has what shapes can't tell.

Pruned and distilled models (SSD-1B, Segmind Vega, KOALA, BK-SDM) differ in these sizes: depths, layers, the middle block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..base.errors import RelayError

Shapes = Mapping[str, tuple[int, ...]]

BESIDE_TEXT = ("label_emb.0.0.weight", "add_embedding.linear_1.weight", "class_embedding.linear_1.weight")
"""The first layer of a UNet for what it reads besides the text, in the original layout and in diffusers' (SDXL, unCLIP)."""
DISTILLED_GUIDANCE = "time_embedding.cond_proj.weight"
"""The layer of a UNet in diffusers' layout that reads guidance_scale, in Latent Consistency Models."""


@dataclass(frozen=True)
class Layer:
    """One residual block and the transformer after it."""

    channels: int
    depth: int
    """Transformer blocks in its attention; 0 if it has no attention."""


def original_levels(shapes: Shapes, side: str = "input") -> list[list[Layer]]:
    """The layers of each down block (of each up block, if ``side`` is "output") in the original layout. The keys have no prefix.

    The original layout numbers the layers of all blocks on a side in one sequence. A down block ends with its downsampler,
    which is a separate layer. An up block ends with the layer that contains an upsampler.
    """
    levels: list[list[Layer]] = [[]]
    for index in range(int(side == "input"), _count(shapes, f"{side}_blocks.")):
        name = f"{side}_blocks.{index}"
        if f"{name}.0.op.weight" in shapes:
            levels.append([])
            continue
        depth = _count(shapes, f"{name}.1.transformer_blocks.")
        levels[-1].append(Layer(shapes[f"{name}.0.out_layers.3.weight"][0], depth))
        if f"{name}.1.conv.weight" in shapes or f"{name}.2.conv.weight" in shapes:
            levels.append([])
    return levels


def diffusers_levels(shapes: Shapes, side: str = "down") -> list[list[Layer]]:
    """The layers of each down block (of each up block, if ``side`` is "up") in diffusers' layout. The keys have no prefix."""
    levels: list[list[Layer]] = []
    for block in range(_count(shapes, f"{side}_blocks.")):
        name = f"{side}_blocks.{block}"
        levels.append(
            [
                Layer(
                    shapes[f"{name}.resnets.{index}.conv2.weight"][0],
                    _count(shapes, f"{name}.attentions.{index}.transformer_blocks."),
                )
                for index in range(_count(shapes, f"{name}.resnets."))
            ]
        )
    return levels


def block_numbers(
    levels: list[list[Layer]], middle_depth: int, config: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The entries of diffusers' config that follow from the down blocks. They override those of ``config``.

    Args:
        middle_depth: transformer blocks in the middle block.
        config: the config of this kind of model. Its ``attention_head_dim`` is either one number of heads for every level,
            or a list with one number for each level, which means that all heads have the same width.

    Raises:
        RelayError: diffusers has no UNet with such blocks.
    """
    if not all(levels) or not all(_is_block(level) for level in levels) or len({len(level) for level in levels}) > 1:
        raise RelayError(no_such_blocks(where))
    widths = [level[0].channels for level in levels]
    heads = config["attention_head_dim"]
    if isinstance(heads, (list, tuple)):
        width = config["block_out_channels"][0] // heads[0]
        heads = [channels // width for channels in widths]
    depths = [_depths(level) for level in levels]
    if not levels[-1][0].depth:  # if the last level has no attention, its entry only applies to the middle block
        depths[-1] = middle_depth or 1
    elif middle_depth and middle_depth != levels[-1][0].depth:
        raise RelayError(no_such_blocks(where))
    return {
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if level[0].depth else "DownBlock2D" for level in levels],
        "transformer_layers_per_block": depths,
        "attention_head_dim": heads,
    }


def up_numbers(up: list[list[Layer]], down: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The entries of diffusers' config that follow from the up blocks.

    Args:
        down: the result of :func:`block_numbers`.

    Raises:
        RelayError: diffusers does not build these up blocks for these down blocks.
    """
    widths = [level[0].channels for level in reversed(up) if level]
    layers = {len(level) for level in up}
    if (
        widths != down["block_out_channels"]
        or layers != {down["layers_per_block"] + 1}
        or not all(_is_block(level) for level in up)
    ):
        raise RelayError(no_such_blocks(where))
    numbers: dict[str, Any] = {
        "up_block_types": ["CrossAttnUpBlock2D" if level[0].depth else "UpBlock2D" for level in up]
    }
    own = [_depths(level) for level in up]
    mirrored = list(reversed(down["transformer_layers_per_block"]))
    if any(level[0].depth and mine != theirs for level, mine, theirs in zip(up, own, mirrored, strict=True)):
        numbers["reverse_transformer_layers_per_block"] = own
    return numbers


def original_numbers(shapes: Shapes, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config entries of a UNet or ControlNet in the original layout. The keys have no prefix.

    Raises:
        RelayError: diffusers has no model with such blocks, or the tensors that tell their sizes are missing.
    """
    try:
        middle = _count(shapes, "middle_block.1.transformer_blocks.")
        numbers = block_numbers(original_levels(shapes), middle, config, where)
        if "up_block_types" in config:
            numbers |= up_numbers(original_levels(shapes, "output"), numbers, where)
            if not middle:
                has_one = "middle_block.0.out_layers.3.weight" in shapes
                numbers["mid_block_type"] = "UNetMidBlock2D" if has_one else None
        else:
            numbers["conditioning_channels"] = shapes["input_hint_block.0.weight"][1]
        return {"in_channels": shapes["input_blocks.0.0.weight"][1], **numbers, **_projection(shapes)}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RelayError(no_such_blocks(where)) from error


def diffusers_numbers(shapes: Shapes, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config entries of a UNet or ControlNet in diffusers' layout. Raises what :func:`original_numbers` raises."""
    try:
        middle = _count(shapes, "mid_block.attentions.0.transformer_blocks.")
        numbers = block_numbers(diffusers_levels(shapes), middle, config, where)
        if not middle:
            has_one = "up_block_types" not in config or "mid_block.resnets.0.conv2.weight" in shapes
            numbers["mid_block_type"] = "UNetMidBlock2D" if has_one else None
        if "up_block_types" in config:
            numbers |= up_numbers(diffusers_levels(shapes, "up"), numbers, where)
            if DISTILLED_GUIDANCE in shapes:
                numbers["time_cond_proj_dim"] = shapes[DISTILLED_GUIDANCE][1]
        else:
            numbers["conditioning_channels"] = shapes["controlnet_cond_embedding.conv_in.weight"][1]
        return {"in_channels": shapes["conv_in.weight"][1], **numbers, **_projection(shapes)}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RelayError(no_such_blocks(where)) from error


def kind_numbers(shapes: Shapes) -> dict[str, Any]:
    """The config entries of a UNet that tell the kinds of models apart, in either layout. The keys have no prefix."""
    widths = {shape[1] for key, shape in shapes.items() if key.endswith(".attn2.to_k.weight") and len(shape) == 2}
    beside = [shapes[key][1] for key in BESIDE_TEXT if len(shapes.get(key, ())) == 2]
    return {
        "cross_attention_dim": widths.pop() if len(widths) == 1 else None,
        "projection_class_embeddings_input_dim": beside[0] if beside else None,
        **_projection(shapes),
    }


def no_such_blocks(where: str) -> str:
    """The message for a UNet or ControlNet that diffusers has no class for, or whose tensors don't tell its sizes."""
    return (
        f"{where}: its blocks are not arranged like those of any model that can be loaded from a single file. If it is a pruned or distilled model, "
        "use its diffusers folder. Otherwise, use another file of the same model."
    )


def _projection(shapes: Shapes) -> dict[str, Any]:
    """Whether the layers around the transformers are linear or 1 x 1 convolutions; empty if there are none."""
    ranks = {len(shape) for key, shape in shapes.items() if key.endswith(".proj_in.weight")}
    return {"use_linear_projection": ranks == {2}} if ranks else {}


def _is_block(level: list[Layer]) -> bool:
    """Whether all layers have the same width, and either all or none have attention."""
    return len({layer.channels for layer in level}) == 1 and len({bool(layer.depth) for layer in level}) == 1


def _depths(level: list[Layer]) -> int | list[int]:
    """One number if all layers have the same depth, otherwise a list, as in diffusers' configs."""
    depths = [layer.depth or 1 for layer in level]
    return depths[0] if len(set(depths)) == 1 else depths


def _count(shapes: Shapes, start: str) -> int:
    """How many different numbers follow ``start`` in the keys."""
    return len({key.removeprefix(start).split(".")[0] for key in shapes if key.startswith(start)})
