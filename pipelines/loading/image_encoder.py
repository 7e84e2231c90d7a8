"""Loads a CLIP image encoder: a folder in transformers' format, or a single file as ComfyUI has them in models/clip_vision."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.component_files import CONFIG_OF_MODEL, ComponentFiles, MissingFiles
from ..files.model_files import plan_single_component
from ..files.read_ahead import read_ahead, whole
from ..files.registry import REGISTRY, component_key, file_identity
from ..files.safetensors import Header
from ..model.component_classes import PICTURE
from .component_building import read_config
from .controlnet import files_in
from .encoder_building import build_encoder
from .file_part import check_file
from .file_signs import FULL_WEIGHTS, quantised, what_it_is
from .folder import check_configs, check_weights, load_component

if TYPE_CHECKING:
    import torch

NAME = "image_encoder"


@dataclass(frozen=True)
class EncoderKind:
    """What a file's tensors don't tell about an image encoder of this width."""

    title: str
    heads: int
    activation: str


KINDS: Mapping[int, EncoderKind] = {
    768: EncoderKind("ViT-B", 12, "quick_gelu"),
    1024: EncoderKind("ViT-L", 16, "quick_gelu"),
    1280: EncoderKind("ViT-H", 16, "gelu"),
    1664: EncoderKind("ViT-bigG", 16, "gelu"),
}
"""Width of the layers -> kind, for the CLIP models of OpenAI (B, L) and LAION (H, bigG).
Source: the config.json of openai/clip-vit-* and laion/CLIP-ViT-*"""


def load_image_encoder_folder(folder: Path, dtype: torch.dtype, where: str) -> Any:
    """The CLIPVisionModelWithProjection in a folder with config.json and safetensors; shared if it is already in memory.

    Raises:
        RelayError: the folder does not contain one, is incomplete or damaged, or only has pickles.
    """
    files = plan_encoder(files_in(folder), dtype, where)
    return load_planned_encoder(folder, files, dtype, where)


def plan_encoder(names: Sequence[str], dtype: torch.dtype, where: str) -> ComponentFiles:
    """The files of the encoder in a folder whose files are ``names``."""
    try:
        return plan_single_component(NAME, PICTURE, names, variant="auto", dtype=dtype, where=where)
    except MissingFiles as error:
        raise MissingFiles(f"{error} The image encoder is not complete: download it again.") from None


def load_planned_encoder(folder: Path, files: ComponentFiles, dtype: torch.dtype, where: str) -> Any:
    """The encoder with these files; shared if it is already in memory."""
    check_weights(folder, files, where)
    key = component_key(folder, files, dtype)
    if key not in REGISTRY:
        check_configs(folder, files, where)
        read_ahead([whole(folder / name) for name in files.weights])
    return REGISTRY.get(key, partial(load_component, folder, files, dtype, where))


def read_encoder_config(folder: Path, where: str) -> dict[str, Any]:
    """The checked config.json of an encoder, without its weights."""
    return read_config(folder, ComponentFiles(NAME, PICTURE, PICTURE.names[0], (CONFIG_OF_MODEL,)), where)


def load_image_encoder_file(
    path: Path, dtype: torch.dtype, where: str, kinds: Mapping[int, EncoderKind] = KINDS
) -> Any:
    """The CLIPVisionModelWithProjection in a file; shared if it is already in memory.

    Its config follows from its tensors, and from :data:`KINDS` for what they don't tell.

    Args:
        kinds: the kinds to know, by the width of their layers.

    Raises:
        RelayError: the file is a pickle, damaged, or not a CLIP image encoder of these kinds.
    """
    header = check_file(path, where)
    config = config_of(header, where, kinds)
    key = (NAME, file_identity(path), dtype)
    if key not in REGISTRY:
        read_ahead([whole(path)])

    def load() -> Any:
        import torch
        from transformers import CLIPVisionModelWithProjection

        files = ComponentFiles(NAME, PICTURE, PICTURE.names[0], (), (path.name,))
        with torch.inference_mode(False):
            module = build_encoder(
                CLIPVisionModelWithProjection, config, path.parent, {path.name: header}, dtype, files, where
            )
        return module.eval().requires_grad_(False)

    return REGISTRY.get(key, load)


LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.")
PATCHES, POSITIONS, PROJECTION, FEED_FORWARD = (
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.embeddings.position_embedding.weight",
    "visual_projection.weight",
    "vision_model.encoder.layers.0.mlp.fc1.weight",
)


def config_of(header: Header, where: str, kinds: Mapping[int, EncoderKind] = KINDS) -> dict[str, Any]:
    """transformers' config for the encoder in a file with transformers' names.

    Raises:
        RelayError: it is another kind of file, or an encoder of a width that is not in ``kinds``.
    """
    shapes = header.shapes
    if bits := quantised(shapes):
        raise RelayError(f"{where} has {bits} weights, which Diffusers Relay does not load. {FULL_WEIGHTS}")
    if PATCHES not in shapes:
        raise RelayError(f"{where} is not a CLIP image encoder with transformers' names. {_what(header)}")
    missing = [key for key in (POSITIONS, PROJECTION, FEED_FORWARD) if key not in shapes]
    if missing:
        raise RelayError(
            f"{where} lacks {', '.join(missing)}, which IP-Adapters need. Use a complete CLIP image encoder, such as "
            "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors."
        )
    (width, channels, patch, _), positions = shapes[PATCHES], shapes[POSITIONS][0]
    side = round((positions - 1) ** 0.5)
    if width not in kinds or side * side + 1 != positions:
        known = ", ".join(f"{kind.title} ({number})" for number, kind in kinds.items())
        raise RelayError(
            f"{where} is a CLIP image encoder of an unknown kind: its layers are {width} wide and it has {positions} positions. Known widths: "
            f"{known}. Use its folder, with config.json and model.safetensors, instead."
        )
    layers = {int(match[1]) for key in shapes if (match := LAYER.match(key))}
    return {
        "hidden_size": width,
        "intermediate_size": shapes[FEED_FORWARD][0],
        "projection_dim": shapes[PROJECTION][0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": kinds[width].heads,
        "hidden_act": kinds[width].activation,
        "num_channels": channels,
        "image_size": side * patch,
        "patch_size": patch,
    }


def _what(header: Header) -> str:
    if header.has("visual.transformer.resblocks.") or header.has("visual.conv1."):
        return "It has OpenCLIP's names: use the file of the same model that transformers can read, whose keys begin with vision_model."
    found = what_it_is(header.shapes)
    what = f"It is {found.what}. " if found else ""
    return f"{what}Use one such as CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors."


def title_of(config: Any) -> str:
    """The encoder's kind for messages, from its config."""
    kind = KINDS.get(config.hidden_size)
    return f"{kind.title if kind else 'an image encoder'} ({config.hidden_size} wide, embeddings of {config.projection_dim})"
