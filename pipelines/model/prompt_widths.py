"""Checks the widths of a prompt for a model without text encoders, which can't be compared with those that made the prompt."""

from __future__ import annotations

from ..base.errors import RelayError
from .components import PipelineComponents

SIZES, SIZES_AND_SCORE = 6, 5
"""Numbers that SDXL's UNets read beside the pooled text: three sizes, or two and an aesthetic score."""


def check_widths(title: str, hidden: int, pooled: int | None, components: PipelineComponents) -> None:
    """
    Args:
        title: the model that encoded the prompt.
        hidden: width of its text.
        pooled: width of its pooled text, if it has one.

    Raises:
        RelayError: the denoiser of ``components`` reads text, or pooled text, of another width.
    """
    source = components.source
    for what, needed, given in zip(("text", "pooled text"), _read_widths(components), (hidden, pooled)):
        if needed is not None and needed != given:
            raise RelayError(
                f"prompt: it was encoded by {title}, whose {what} has width {given}, but {source} ({components.family.title}) reads {what} of width "
                f"{needed}. Encode the prompt with a complete model of the same kind as {source}."
            )


def _read_widths(components: PipelineComponents) -> tuple[int | None, int | None]:
    """The widths of text and pooled text that the denoiser reads; None where its config doesn't tell."""
    config = components[components.family.denoiser].config
    hidden = config.get("cross_attention_dim")
    beside = config.get("projection_class_embeddings_input_dim")
    pooled = None
    if components.family.has_pooled_embeds and beside is not None:
        sizes = SIZES_AND_SCORE if components.config.get("requires_aesthetics_score") else SIZES
        pooled = beside - sizes * config.addition_time_embed_dim
    return hidden if isinstance(hidden, int) else None, pooled
