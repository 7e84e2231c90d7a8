"""ControlNet Unions: what their tensors tell, and loading one from a single file, which diffusers can't do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from .block_layout import Shapes, no_such_blocks

if TYPE_CHECKING:
    import torch

    from .file_part import Part

TASKS = "task_embedding"
"""A tensor that every ControlNet Union has, and no other ControlNet: [modes, width]."""


def control_types_of(shapes: Shapes) -> int:
    """The number of modes of a ControlNet Union; 0 for other ControlNets. The keys have no prefix."""
    shape = shapes.get(TASKS, ())
    return shape[0] if len(shape) == 2 else 0


def union_numbers(shapes: Shapes, where: str) -> dict[str, int]:
    """The config entries that only a ControlNet Union has.

    Raises:
        RelayError: the tensors that tell them are missing.
    """
    try:
        width, out = shapes[TASKS][1], shapes["spatial_ch_projs.weight"][0]
    except (KeyError, IndexError) as error:
        raise RelayError(no_such_blocks(where)) from error
    return {
        "num_control_type": control_types_of(shapes),
        "num_trans_channel": width,
        "num_trans_layer": len({key.split(".")[1] for key in shapes if key.startswith("transformer_layes.")}),
        "num_proj_channel": out,
    }


def union_model(part: Part, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """The module. A file has its tensors, here in ``dtype`` already, under diffusers' names.

    Raises:
        ValueError: a tensor has another shape, in diffusers' words, which :mod:`.file_part` reads.
    """
    from accelerate import init_empty_weights
    from diffusers import ControlNetUnionModel

    config = json.loads((part.config / "config.json").read_text("utf-8"))
    with init_empty_weights(include_buffers=False):
        module = ControlNetUnionModel.from_config({**config, "_class_name": part.class_name, **part.numbers})
    for key, value in module.state_dict().items():
        if key in tensors and tensors[key].shape != value.shape:
            raise ValueError(f"because {key} expected shape {value.shape}, but got {tensors[key].shape}")
    module.load_state_dict(tensors, strict=False, assign=True)
    return module
