"""The part of an LLM's config that describes a text encoder, in the form that transformers 4 and 5 both read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.errors import RelayError, shown

LLM_TEXT = {
    *(
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    ),
    *("hidden_act", "rms_norm_eps", "vocab_size", "max_position_embeddings", "attention_bias", "attention_dropout"),
    *("initializer_range", "rope_theta", "rope_scaling"),
}
"""Sliding windows are left out: they are longer than any text here."""
PLAIN_POSITIONS = ("default", "mrope")
"""Kinds of ``rope_scaling`` that don't stretch positions. The second gives a picture's tokens three of them; for text, all are equal."""


def is_llm(class_name: str) -> bool:
    return class_name.startswith("Qwen")


def llm_part(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config of the text model. A vision LLM has it in ``text_config``, or beside the vision model's.

    Raises:
        RelayError: its positions are stretched, or its numbers of heads and widths don't fit together.
    """
    inner = config.get("text_config")
    part = dict(inner if isinstance(inner, Mapping) and "hidden_size" in inner else config)
    positions = part.get("rope_parameters") or part.get("rope_scaling") or {}
    if not isinstance(positions, Mapping) or positions.get("rope_type", positions.get("type")) not in (
        None,
        *PLAIN_POSITIONS,
    ):
        raise RelayError(f"{where}: rope_scaling is {shown(repr(positions))}, which Diffusers Relay does not run.")
    theta = part.get("rope_theta", positions.get("rope_theta"))
    part["rope_theta"] = float(theta) if isinstance(theta, int) and not isinstance(theta, bool) else theta
    part["rope_scaling"] = None
    counts = [part.get(name) for name in ("num_attention_heads", "num_key_value_heads", "hidden_size")]
    heads, groups, width = (number if isinstance(number, int) else 0 for number in counts)
    if min(heads, groups, width) < 1 or heads % groups:
        raise RelayError(
            f"{where}: num_attention_heads, num_key_value_heads and hidden_size are {shown(repr(counts))}, which no LLM has. Download the file again."
        )
    sections = positions.get("mrope_section")
    if sections is not None:
        whole = isinstance(sections, list) and all(isinstance(number, int) and number > 0 for number in sections)
        if not whole or len(sections) != 3 or 2 * sum(sections) * heads != width:
            raise RelayError(
                f"{where}: mrope_section is {shown(repr(sections))}, but must be three numbers whose sum is half a head's width. Download the file again."
            )
        part["rope_scaling"] = {"type": "default", "rope_type": "default", "mrope_section": list(sections)}
    if part["rope_theta"] is None:
        del part["rope_theta"]
    return part
