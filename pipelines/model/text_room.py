"""How many text tokens a denoiser can read."""

from __future__ import annotations

from .components import PipelineComponents

TEXT_STEP = 32
"""Transformers with a table of positions (``axes_lens`` in their config) pad the text to a multiple of it."""


def most_text_tokens(components: PipelineComponents) -> int | None:
    """The most text tokens that the denoiser has positions for. None: any number.

    In a table of positions, the first is that of padding and the one after the text is the picture's.
    """
    family = components.family
    most = family.most_text_tokens
    table = components[family.denoiser].config.get("axes_lens")
    if table is None:
        return most
    in_table: int = (table[0] - 2) // TEXT_STEP * TEXT_STEP
    return in_table if most is None else min(most, in_table)
