"""Checks a component's config: keeps the values of its architecture, each within limits, and drops the rest.

What is dropped does not describe the architecture: paths, code (``auto_map``), implementations, dtypes, library options.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..base.errors import RelayError, in_a_line
from ..files.component_files import SIDE_FILES, ComponentFiles
from ..files.model_files import short
from ..model.component_classes import PUBLISHED_WITH, Classes
from .config_types import check_types

CLIP = {
    *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("layer_norm_eps", "attention_dropout", "initializer_range", "initializer_factor"),
}
CLIP_TEXT = CLIP | {"vocab_size", "max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"}
CLIP_PICTURE = CLIP | {"num_channels", "image_size", "patch_size"}
T5_TEXT = {
    *("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size", "feed_forward_proj", "layer_norm_epsilon"),
    *("relative_attention_num_buckets", "relative_attention_max_distance", "dropout_rate", "initializer_factor"),
    *("pad_token_id", "eos_token_id", "tie_word_embeddings"),
}
PICTURE_PROCESSOR = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std", "do_convert_rgb"),
}
QUANTISED = "quantization_config"
VERSION = re.compile(r"\d+(\.\d+){1,3}(\.?(dev|rc|a|b)\d+)?")

WIDTH, LAYERS, SIDE = 16_384, 256, 8_192
LONGEST_LIST, LONGEST_WORD, DEEPEST = 64, 128, 3
MOST = {
    "num_train_timesteps": 10_000,
    "original_inference_steps": 10_000,
    "solver_order": 10,
    "vocab_size": 1_000_000,
    "max_position_embeddings": 65_536,
    "num_vq_embeddings": 1_000_000,
    "num_class_embeds": 100_000,
    "num_embeddings": 4_096,
    "additional_embeddings": 4_096,
    "num_attention_heads": 512,
    "num_heads": 512,
    "d_kv": 512,
    "d_ff": 65_536,
    "attention_head_dim": 512,
    "sample_size": SIDE,
    "image_size": SIDE,
    "patch_size": SIDE,
    "size": SIDE,
    "crop_size": SIDE,
    "conv_in_kernel": 63,
    "conv_out_kernel": 63,
    "pad_token_id": 1_000_000,
    "bos_token_id": 1_000_000,
    "eos_token_id": 1_000_000,
    "num_control_type": 256,
    "num_trans_head": 512,
    "num_trans_layer": LAYERS,
    **dict.fromkeys(("layers_per_block", "num_layers", "num_hidden_layers", "transformer_layers_per_block"), LAYERS),
    "num_single_layers": LAYERS,
    **dict.fromkeys(("num_encoder_blocks", "num_decoder_blocks", "reverse_transformer_layers_per_block"), LAYERS),
}
"""The greatest allowed whole number for each name; :data:`WIDTH` for all others."""
AT_LEAST_ONE = {
    *(
        "num_train_timesteps",
        "original_inference_steps",
        "hidden_size",
        "intermediate_size",
        "projection_dim",
        "vocab_size",
    ),
    *("max_position_embeddings", "num_attention_heads", "norm_num_groups", "block_out_channels", "in_channels"),
    *("d_model", "d_kv", "d_ff", "num_heads", "num_control_type", "num_trans_channel", "num_trans_head"),
    *("out_channels", "latent_channels", "patch_size", "image_size", "num_channels", "size", "crop_size"),
}
MOST_BLOCKS = 1_000
"""Layers in all blocks together; SDXL's UNet has 140."""
GREATEST = 1e9
"""The greatest allowed float."""
LIST_OF = {"trained_betas": 10_000}


def checked_config(config: Mapping[str, Any], classes: Classes, component_class: Any, where: str) -> dict[str, Any]:
    """The part of ``config`` that ``component_class`` is built from.

    Args:
        config: the contents of the file.
        classes: the component's row in the family's table.
        component_class: the class of the component, one of ``classes``.
        where: the file, for messages.

    Raises:
        RelayError: the weights are quantised, or a value is outside what a model can have.
    """
    if config.get(QUANTISED) is not None:
        raise RelayError(
            f"{where}: its weights are quantised, which Diffusers Relay does not load. Use a copy in float16 or float32."
        )
    if classes.library == "transformers" and classes.kind == "model":
        config, allowed = _encoder_part(config, component_class.__name__)
    elif classes.kind == "processor":
        allowed = PICTURE_PROCESSOR
    elif classes.kind == "scheduler":
        allowed = _scheduler_parameters(classes)  # options of other schedulers stay, in case one replaces it
    else:
        allowed = _parameters(component_class)
    found = {name: value for name, value in config.items() if name in allowed}
    for name, value in found.items():
        _check(name, value, where)
    _check_blocks(found, where)
    _check_rotary(found, where)
    if classes.kind != "processor":
        has_blocks = classes.kind == "model" and classes.library == "diffusers"
        check_types(found, component_class, where, lists=has_blocks)
    if classes.library != "diffusers":
        return found
    # diffusers adds these entries itself and runs old UNets differently by version. Keep the file's order, as diffusers does
    noted = {"_class_name": component_class.__name__}
    if _is_version(config.get("_diffusers_version")):
        noted["_diffusers_version"] = config["_diffusers_version"]
    return {name: noted.get(name, value) for name, value in config.items() if name in found or name in noted}


def _is_version(value: object) -> bool:
    return isinstance(value, str) and len(value) < LONGEST_WORD and VERSION.fullmatch(value) is not None


def least_parameters(config: Any) -> int:
    """A lower bound of the number of parameters of an encoder with this CLIP or T5 config of transformers."""
    width = config.hidden_size
    if hasattr(config, "d_kv"):
        return int(config.num_layers * (4 * width * config.d_kv * config.num_heads + 2 * width * config.d_ff))
    layer = 4 * width**2 + 2 * width * config.intermediate_size
    tokens = getattr(config, "vocab_size", 0) + getattr(config, "max_position_embeddings", 0)
    return int(config.num_hidden_layers * layer + tokens * width)


def _parameters(component_class: Any) -> set[str]:
    import inspect

    return set(inspect.signature(component_class.__init__).parameters) - {"self", "args", "kwargs"}


def _scheduler_parameters(classes: Classes) -> set[str]:
    import diffusers

    names = set(classes.names) | set(PUBLISHED_WITH)
    return set().union(*(_parameters(getattr(diffusers, name)) for name in names if hasattr(diffusers, name)))


def _encoder_part(config: Mapping[str, Any], class_name: str) -> tuple[Mapping[str, Any], Collection[str]]:
    """(Config of one encoder, names that it may have). A whole CLIP's config has one half for text and one for images."""
    if class_name.startswith("T5"):
        return config, T5_TEXT
    half, allowed = ("vision_config", CLIP_PICTURE) if "Vision" in class_name else ("text_config", CLIP_TEXT)
    if config.get("model_type") == "clip" and isinstance(config.get(half), Mapping):
        config = config[half]
    return config, allowed


def _check(name: str, value: Any, where: str, depth: int = 0) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        _check_number(name, value, where)
    elif isinstance(value, str):
        if len(value) > LONGEST_WORD:
            raise _refused(name, value, where, f"at most {LONGEST_WORD} characters")
    elif isinstance(value, (list, dict)):
        most = LIST_OF.get(name, LONGEST_LIST)
        if len(value) > most or depth >= DEEPEST:
            raise _refused(name, value, where, f"at most {most} values, {DEEPEST} lists deep")
        for part in value.values() if isinstance(value, dict) else value:
            _check(name, part, where, depth + 1)


def _check_number(name: str, value: float, where: str) -> None:
    if isinstance(value, int):
        least, most = int(name in AT_LEAST_ONE), MOST.get(name, WIDTH)
        if name not in AT_LEAST_ONE and name not in MOST:
            least = -most
        if not least <= value <= most:
            raise _refused(name, value, where, f"{least} to {most}")
    elif math.isnan(value) or (abs(value) > GREATEST and not (math.isinf(value) and name == "lambda_min_clipped")):
        raise _refused(name, value, where, f"-{GREATEST:.0e} to {GREATEST:.0e}")
    elif name in AT_LEAST_ONE | set(MOST):
        raise _refused(name, value, where, "a whole number")


def _check_blocks(config: Mapping[str, Any], where: str) -> None:
    blocks = [len(value) for name, value in config.items() if name.endswith(("block_types", "block_out_channels"))]
    layers = _greatest(config.get("layers_per_block")) + 1
    inside = max(
        _greatest(config.get(name)) for name in ("transformer_layers_per_block", "reverse_transformer_layers_per_block")
    )
    total = max(blocks, default=0) * layers * max(inside, 1)
    total = max(total, *(sum(_flat(config.get(name))) for name in ("num_encoder_blocks", "num_decoder_blocks")))
    if total > MOST_BLOCKS:
        raise RelayError(
            f"{where}: the config has {total} layers, but no model of its kind has more than {MOST_BLOCKS}. Download the file again."
        )


def _check_rotary(config: Mapping[str, Any], where: str) -> None:
    """Flux's attention rotates parts of each head, one for each axis."""
    axes, head = config.get("axes_dims_rope"), config.get("attention_head_dim")
    if axes is None or not isinstance(head, int):
        return
    parts = _flat(axes)
    if len(parts) != 3 or sum(parts) != head or any(part % 2 or part < 2 for part in parts):
        raise _refused("axes_dims_rope", axes, where, f"three even numbers with the sum {head}, its attention_head_dim")


def _greatest(value: Any) -> int:
    return max(_flat(value), default=0)


def _flat(value: Any) -> list[int]:
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in _flat(part)]
    return [value] if isinstance(value, int) else []


def _refused(name: str, value: object, where: str, allowed: str) -> RelayError:
    return RelayError(
        f"{where}: {name} is {short(value)}, which no model has (allowed: {allowed}). Download the file again."
    )


def from_config(construct: Callable[[], Any], files: ComponentFiles, where: str) -> Any:
    """The result of ``construct``. If the library rejects the config, the message quotes its reason."""
    try:
        return construct()
    except MemoryError:
        raise
    except Exception as error:
        name = "/".join(filter(None, (files.folder, SIDE_FILES[files.classes.kind][0])))
        reason = f"it does not know {error}" if isinstance(error, KeyError) else in_a_line(error)
        raise RelayError(
            f"{where}: {files.class_name} can't be built from {name} ({reason}). Use the file from a complete copy of the model."
        ) from error
