"""Of which type a config's values are: what a class has for a default says it, and a value of another is refused before the class sees it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from ..base.errors import RelayError, shown

NUMBER = "a number"
CLIP_TYPES: Mapping[str, object] = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), 1),
    **dict.fromkeys(("projection_dim", "vocab_size", "max_position_embeddings", "num_channels", "image_size"), 1),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "patch_size"), 1),
    **dict.fromkeys(("layer_norm_eps", "attention_dropout", "initializer_range", "initializer_factor"), 1.0),
    "hidden_act": "quick_gelu",
}
"""Name -> a value of its type; transformers' classes say it otherwise in each version."""
T5_TYPES: Mapping[str, object] = {
    **dict.fromkeys(("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size", "pad_token_id"), 1),
    **dict.fromkeys(("relative_attention_num_buckets", "relative_attention_max_distance", "eos_token_id"), 1),
    **dict.fromkeys(("dropout_rate", "layer_norm_epsilon", "initializer_factor"), 1.0),
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
NEVER_NULL = {
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "timestep_spacing"),
    *("scaling_factor", "latent_channels", "layer_norm_eps", "hidden_act", "eos_token_id"),
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"),
    *("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "layer_norm_epsilon", "feed_forward_proj"),
    *("max_position_embeddings", "norm_eps", "freq_shift", "in_channels", "out_channels", "block_out_channels"),
}
"""Without one of these nothing is made, or not what the file's author had."""
BETWEEN: Mapping[str, tuple[float, float]] = {
    "scaling_factor": (1e-4, 1e4),
    "shift_factor": (-1e4, 1e4),
    "shift": (1e-6, 1e6),
    "norm_eps": (0, 1),
    "layer_norm_eps": (0, 1),
    "dropout": (0, 1),
    "attention_dropout": (0, 1),
    "downsample_padding": (0, 1),
    "solver_order": (1, 10),
    "noise_sampler_seed": (0, 2**63),
    "mid_block_scale_factor": (1e-6, 1e6),
    "timestep_scaling": (1e-6, 1e6),
    "flow_shift": (1e-6, 1e6),
}
"""The least and the greatest of numbers that a run divides by, takes the root of, or counts with."""
WORDS: Mapping[str, tuple[str, ...]] = {"controlnet_conditioning_channel_order": ("rgb", "bgr")}
"""Words that are looked at in a run, and not when the module is made."""


def check_types(config: Mapping[str, Any], component_class: Any, where: str, *, lists: bool) -> None:
    """
    Args:
        config: what the component is made from.
        component_class: whose defaults say the types; a class of transformers has :data:`CLIP_TYPES` or :data:`T5_TYPES`.
        lists: a number, word or flag may be a list of such, one for each block.

    Raises:
        RelayError: a value is of another type than its class has, or out of :data:`BETWEEN`.
    """
    defaults: Mapping[str, object] = {
        name: one.default for name, one in inspect.signature(component_class.__init__).parameters.items()
    }
    if "hidden_act" in config:
        defaults = CLIP_TYPES
    elif "d_kv" in config:
        defaults = T5_TYPES
    for name, value in config.items():
        default = defaults.get(name, inspect.Parameter.empty)
        if default is inspect.Parameter.empty:
            continue
        wanted = _wanted(value, name, default, lists)
        if wanted is not None:
            raise RelayError(
                f"{where}: {name} is {shown(repr(value))}, and it is to be {wanted}. Download the file anew."
            )
    _check_statistics(config, where)


def _wanted(value: Any, name: str, default: object, lists: bool) -> str | None:
    """What the value is to be, where it is not."""
    if value is None:
        return _what(default) if name in NEVER_NULL and default is not None else None
    if isinstance(default, (list, tuple)):
        filled = isinstance(value, (list, tuple)) and (len(value) > 0 or len(default) == 0)
        fits = filled and _all_are(value, default)
        return None if fits else "a list, as its class has it"
    if lists and isinstance(value, (list, tuple)) and name not in BETWEEN:
        return None if _all_are(value, (default,)) else f"{_what(default)} or a list of such"
    if default is not None and not _is(value, default) and not (lists and _is(default, 1) and _is(value, 1.0)):
        return _what(
            default
        )  # models have factors where diffusers has 1 for a default; what counts is looked at elsewhere
    if value not in WORDS.get(name, (value,)):
        return " or ".join(map(repr, WORDS[name]))
    if name in BETWEEN:
        least, most = BETWEEN[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            return f"{least:g} to {most:g}"
    return None


def _all_are(values: Any, defaults: Any) -> bool:
    known = [default for default in defaults if default is not None]
    return all(
        value is None
        or (_all_are(value, defaults) if isinstance(value, (list, tuple)) else not known or _is(value, known[0]))
        for value in values
    )


def _is(value: object, default: object) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, str) if isinstance(default, str) else True


def _what(default: object) -> str:
    kinds = (
        (tuple, "a list"),
        (list, "a list"),
        (bool, "true or false"),
        (int, "a whole number"),
        (float, NUMBER),
        (str, "a word"),
    )
    return next((what for kind, what in kinds if isinstance(default, kind)), "of another kind")


def _check_statistics(config: Mapping[str, Any], where: str) -> None:
    """The mean and deviation of each channel of a VAE's latents."""
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is None or deviation is None:
        return  # diffusers' pipelines then use neither
    channels = config.get("latent_channels", 4)
    for name, values in (("latents_mean", mean), ("latents_std", deviation)):
        numbers = isinstance(values, list) and all(_is(value, 1.0) and math.isfinite(value) for value in values)
        if not numbers or len(values) != channels or (name == "latents_std" and not all(value > 0 for value in values)):
            raise RelayError(
                f"{where}: {name} is {shown(repr(values))}, and it is to be a list of {channels} numbers{' above 0' if name == 'latents_std' else ''}, "
                "one for each channel. Download the file anew."
            )
