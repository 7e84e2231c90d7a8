"""Mixes two prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.errors import RelayError
from .embeds import ImageEmbeds, PromptEmbeds, TextEmbeds

if TYPE_CHECKING:
    import torch


def mix(a: PromptEmbeds | ImageEmbeds, b: PromptEmbeds | ImageEmbeds, weight_b: float) -> PromptEmbeds | ImageEmbeds:
    """``a * (1 - weight_b) + b * weight_b`` for all embeddings, like ``KandinskyV22PriorPipeline.interpolate``.

    Raises:
        RelayError: the prompts have different kinds of embeddings, text encoders, widths, lengths or sizes, or the weight is
            outside 0..1.
    """
    if not 0 <= weight_b <= 1:
        raise RelayError(
            f"weight_b: {weight_b:g} is not between 0 and 1. Use 0 for only prompt_a, 1 for only prompt_b."
        )
    if isinstance(a, ImageEmbeds) and isinstance(b, ImageEmbeds):
        if a.positive.shape != b.positive.shape:
            raise RelayError(
                f"prompt_a, prompt_b: can't mix image embeddings of width {a.positive.shape[-1]} and {b.positive.shape[-1]}, from {a.title} and "
                f"{b.title}. Make both with the same prior."
            )
        title = a.title if a.title == b.title else f"{a.title} + {b.title}"
        return ImageEmbeds(_mean(a.positive, b.positive, weight_b), _mean(a.negative, b.negative, weight_b), title)
    if isinstance(a, PromptEmbeds) and isinstance(b, PromptEmbeds):
        if not a.mark.is_same(b.mark):
            raise RelayError(
                f"prompt_a, prompt_b: they were encoded by different text encoders, those of {a.mark.title} and {b.mark.title}. Encode both with the same model."
            )
        if a.positive.hidden.shape != b.positive.hidden.shape:
            raise RelayError(
                f"prompt_a, prompt_b: one has {a.positive.hidden.shape[1]} tokens and the other {b.positive.hidden.shape[1]}. "
                "Shorten the longer one, or lengthen the shorter one."
            )
        if a.sizes != b.sizes:
            raise RelayError(
                "prompt_a, prompt_b: they have different sizes from SDXL Size. Connect both without it, and put SDXL Size after Mix Prompts."
            )
        positive = _mean_text(a.positive, b.positive, weight_b)
        negative = _mean_text(a.negative, b.negative, weight_b)
        return PromptEmbeds(positive, negative, a.mark, a.empty, a.sizes, a.has_negative or b.has_negative)
    raise RelayError(
        "prompt_a, prompt_b: one has text embeddings and the other image embeddings. Mix two prompts from Encode Prompt, or two from Kandinsky Prior and Image Prompt."
    )


def _mean(a: torch.Tensor, b: torch.Tensor, weight_b: float) -> torch.Tensor:
    return a * (1 - weight_b) + b.to(a) * weight_b


def _mean_text(a: TextEmbeds, b: TextEmbeds, weight_b: float) -> TextEmbeds:
    pooled = None if a.pooled is None or b.pooled is None else _mean(a.pooled, b.pooled, weight_b)
    return TextEmbeds(_mean(a.hidden, b.hidden, weight_b), pooled, stand_ins=min(a.stand_ins, b.stand_ins))
