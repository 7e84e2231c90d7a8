"""Text embeddings as the host's CONDITIONING, so that Compel also serves ComfyUI's own samplers."""

from __future__ import annotations

from typing import Any

from ..pipelines.model.embeds import TextEmbeds


def to_conditioning(text: TextEmbeds) -> list[list[Any]]:
    """``[[hidden, {"pooled_output": pooled}]]``, float32. Sizes and scores are left to the host's nodes, which set them."""
    extras = {} if text.pooled is None else {"pooled_output": text.pooled.float()}
    return [[text.hidden.float(), extras]]
