"""The sizes of a UNet or ControlNet, read off the shapes of its tensors; diffusers' config says what shapes cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..base.errors import RelayError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layer:
    """One residual block, and the transformer after it."""

    channels: int
    depth: int
    """Transformer blocks in its attention; 0: it has none."""


def original_levels(shapes: Shapes) -> list[list[Layer]]:
    """The down blocks of the original layout, each its layers. ``shapes``: keys begin with ``input_blocks.``.

    The original counts the layers of all down blocks in one row; a block's downsampler is a layer of its own and ends it.
    """
    levels: list[list[Layer]] = [[]]
    index = 1
    while True:
        name = f"input_blocks.{index}"
        if f"{name}.0.op.weight" in shapes:
            levels.append([])
        elif f"{name}.0.out_layers.3.weight" in shapes:
            depth = _count(shapes, f"{name}.1.transformer_blocks.")
            levels[-1].append(Layer(shapes[f"{name}.0.out_layers.3.weight"][0], depth))
        else:
            return levels
        index += 1


def diffusers_levels(shapes: Shapes) -> list[list[Layer]]:
    """The same of diffusers' layout. ``shapes``: keys begin with ``down_blocks.``."""
    levels: list[list[Layer]] = []
    for block in range(_count(shapes, "down_blocks.")):
        name = f"down_blocks.{block}"
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
    """The entries of diffusers' config that ``levels`` decide; to be laid over ``config``, whose heads are kept.

    Args:
        middle_depth: transformer blocks in the middle block.
        config: of the kind. Its ``attention_head_dim`` is a number of heads (the same at every width), or one for each
            level, which means heads of one width.

    Raises:
        RelayError: diffusers has no UNet of such blocks.
    """
    if (
        not all(levels)
        or any(set(level) != {level[0]} for level in levels)
        or len({len(level) for level in levels}) > 1
    ):
        raise RelayError(
            f"{where} has a UNet whose blocks are unlike each other, as pruned and distilled models have, which cannot be loaded "
            f"from one file. Save it as a diffusers folder."
        )
    first = [level[0] for level in levels]
    widths = [layer.channels for layer in first]
    heads = config["attention_head_dim"]
    if isinstance(heads, (list, tuple)):
        width = config["block_out_channels"][0] // heads[0]
        heads = [channels // width for channels in widths]
    down = ["CrossAttnDownBlock2D" if layer.depth else "DownBlock2D" for layer in first]
    up = ["CrossAttnUpBlock2D" if layer.depth else "UpBlock2D" for layer in reversed(first)]
    return {
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": down,
        **({"up_block_types": up} if "up_block_types" in config else {}),
        "transformer_layers_per_block": [layer.depth or 1 for layer in first[:-1]] + [middle_depth or 1],
        "attention_head_dim": heads,
    }


def original_numbers(shapes: Shapes, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Of a UNet or ControlNet in the original layout; the keys have no prefix."""
    middle = _count(shapes, "middle_block.1.transformer_blocks.")
    channels = {"in_channels": shapes["input_blocks.0.0.weight"][1]}
    return {**channels, **block_numbers(original_levels(shapes), middle, config, where)}


def diffusers_numbers(shapes: Shapes, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Of a ControlNet in diffusers' layout."""
    middle = _count(shapes, "mid_block.attentions.0.transformer_blocks.")
    numbers = block_numbers(diffusers_levels(shapes), middle, config, where)
    if not middle:
        numbers["mid_block_type"] = "UNetMidBlock2D"
    return {"in_channels": shapes["conv_in.weight"][1], **numbers}


def _count(shapes: Shapes, start: str) -> int:
    """How many numbers follow ``start`` among the keys."""
    return len({key.removeprefix(start).split(".")[0] for key in shapes if key.startswith(start)})
