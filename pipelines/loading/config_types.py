"""Checks the types of a config's values against the defaults of the class, before the class is built."""

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
"""Name -> an example value of its type, because transformers' classes declare types differently in each version."""
T5_TYPES: Mapping[str, object] = {
    **dict.fromkeys(("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size", "pad_token_id"), 1),
    **dict.fromkeys(("relative_attention_num_buckets", "relative_attention_max_distance", "eos_token_id"), 1),
    **dict.fromkeys(("dropout_rate", "layer_norm_epsilon", "initializer_factor"), 1.0),
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
LLM_TYPES: Mapping[str, object] = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), 1),
    **dict.fromkeys(("num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings"), 1),
    **dict.fromkeys(("rms_norm_eps", "rope_theta", "attention_dropout", "initializer_range"), 1.0),
    "hidden_act": "silu",
    "attention_bias": False,
}
NEVER_NULL = {
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "timestep_spacing"),
    *("scaling_factor", "latent_channels", "layer_norm_eps", "hidden_act", "eos_token_id"),
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"),
    *("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "layer_norm_epsilon", "feed_forward_proj"),
    *("num_key_value_heads", "rms_norm_eps", "rope_theta"),
    *("max_position_embeddings", "norm_eps", "freq_shift", "in_channels", "out_channels", "block_out_channels"),
}
"""Without one of these, the component can't be built, or would differ from what the author of the file had."""
BETWEEN: Mapping[str, tuple[float, float]] = {
    "scaling_factor": (1e-4, 1e4),
    "shift_factor": (-1e4, 1e4),
    "shift": (1e-6, 1e6),
    "norm_eps": (0, 1),
    "layer_norm_eps": (0, 1),
    "rms_norm_eps": (0, 1),
    "rope_theta": (1, 1e9),
    "dropout": (0, 1),
    "attention_dropout": (0, 1),
    "downsample_padding": (0, 1),
    "solver_order": (1, 10),
    "noise_sampler_seed": (0, 2**63),
    "mid_block_scale_factor": (1e-6, 1e6),
    "timestep_scaling": (1e-6, 1e6),
    "flow_shift": (1e-6, 1e6),
}
"""The limits of numbers that a run divides by, takes the root of, or counts with."""
WORDS: Mapping[str, tuple[str, ...]] = {"controlnet_conditioning_channel_order": ("rgb", "bgr")}
"""The allowed words of settings that are only read in a run, not when the module is built."""


def check_types(config: Mapping[str, Any], component_class: Any, where: str, *, lists: bool) -> None:
    """
    Args:
        config: the values that the component is built from.
        component_class: its defaults tell the types. For transformers' classes, :data:`CLIP_TYPES`, :data:`T5_TYPES` or :data:`LLM_TYPES` do.
        lists: whether a number, word or flag may also be a list of them, one for each block.

    Raises:
        RelayError: a value has another type than in its class, or is outside :data:`BETWEEN`.
    """
    defaults: Mapping[str, object] = {
        name: one.default for name, one in inspect.signature(component_class.__init__).parameters.items()
    }
    if "rms_norm_eps" in config:
        defaults = LLM_TYPES
    elif "hidden_act" in config:
        defaults = CLIP_TYPES
    elif "d_kv" in config:
        defaults = T5_TYPES
    for name, value in config.items():
        default = defaults.get(name, inspect.Parameter.empty)
        if default is inspect.Parameter.empty:
            continue
        allowed = _allowed_if_wrong(value, name, default, lists)
        if allowed is not None:
            raise RelayError(
                f"{where}: {name} is {shown(repr(value))}, but it must be {allowed}. Download the file again."
            )
    _check_statistics(config, where)


def _allowed_if_wrong(value: Any, name: str, default: object, lists: bool) -> str | None:
    """What the value must be, in words; None if it is right."""
    if value is None:
        return _type_in_words(default) if name in NEVER_NULL and default is not None else None
    if isinstance(default, (list, tuple)):
        filled = isinstance(value, (list, tuple)) and (len(value) > 0 or len(default) == 0)
        fits = filled and _all_are(value, default)
        return None if fits else "a list like the default of its class"
    if lists and isinstance(value, (list, tuple)) and name not in BETWEEN:
        return None if _all_are(value, (default,)) else f"{_type_in_words(default)} or a list of them"
    if default is not None and not _is(value, default) and not (lists and _is(default, 1) and _is(value, 1.0)):
        # models have fractions where diffusers' default is 1; numbers that count something are checked elsewhere
        return _type_in_words(default)
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


def _type_in_words(default: object) -> str:
    kinds = (
        (tuple, "a list"),
        (list, "a list"),
        (bool, "true or false"),
        (int, "a whole number"),
        (float, NUMBER),
        (str, "a word"),
    )
    return next((words for kind, words in kinds if isinstance(default, kind)), "a value of another type")


def _check_statistics(config: Mapping[str, Any], where: str) -> None:
    """Checks the mean and standard deviation of each channel of a VAE's latents."""
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is None or deviation is None:
        return  # diffusers' pipelines only use the two together
    channels = config.get("latent_channels", config.get("z_dim", 4))
    for name, values in (("latents_mean", mean), ("latents_std", deviation)):
        numbers = isinstance(values, list) and all(_is(value, 1.0) and math.isfinite(value) for value in values)
        if not numbers or len(values) != channels or (name == "latents_std" and not all(value > 0 for value in values)):
            raise RelayError(
                f"{where}: {name} is {shown(repr(values))}, but it must be a list of {channels} numbers{' above 0' if name == 'latents_std' else ''}, "
                "one for each channel. Download the file again."
            )
