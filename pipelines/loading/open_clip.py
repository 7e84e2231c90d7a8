"""Gives the image encoder of an OpenCLIP file the names of transformers.

Source: https://github.com/mlfoundations/open_clip
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

VISUAL = "visual."
PROJECTION = "visual.proj"
ALONE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
}
IN_MODEL = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}
IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
NORM = re.compile(r"visual\.(ln_pre|ln_post)\.(weight|bias)")
LAYER = re.compile(rf"visual\.transformer\.resblocks\.(\d+)\.({'|'.join(map(re.escape, IN_LAYER))})\.(weight|bias)")
JOINED = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")


def is_open_clip(keys: Mapping[str, object]) -> bool:
    return "visual.conv1.weight" in keys


def with_transformers_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The image encoder's tensors under transformers' names, with queries, keys and values apart. The text encoder's are left out.

    Tensors of the image encoder that OpenCLIP's ViT does not have keep their names.
    """
    named: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if not key.startswith(VISUAL):
            continue
        if key == PROJECTION:
            named["visual_projection.weight"] = tensor.T.contiguous()
        elif match := JOINED.fullmatch(key):
            for name, part in zip("qkv", tensor.chunk(3)):
                named[f"vision_model.encoder.layers.{match[1]}.self_attn.{name}_proj.{match[2]}"] = part
        elif match := LAYER.fullmatch(key):
            named[f"vision_model.encoder.layers.{match[1]}.{IN_LAYER[match[2]]}.{match[3]}"] = tensor
        elif match := NORM.fullmatch(key):
            named[f"vision_model.{IN_MODEL[match[1]]}.{match[2]}"] = tensor
        else:
            named[ALONE.get(key, key)] = tensor
    return named
