"""Calls Compel: its class, a text encoder with the interface that it expects, and a prompt as its own tree."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .encoder_runs import TextEncoder
from .prompt_text import Blend, Passage, Prompt

if TYPE_CHECKING:
    import torch

ReadLayer = Callable[[Any], "torch.Tensor"]
"""Takes the hidden state to use, [1, tokens, width], from a text encoder's output."""


class Layer:
    """A text encoder with the interface that Compel expects, which returns a chosen layer as the last one.

    Outputs are float32, so that weights are not applied in half precision. At weight 1, the cast back to the model's
    dtype keeps every bit.
    """

    def __init__(self, source: TextEncoder, read: ReadLayer) -> None:
        import torch

        self.device = source.device
        self.dtype = torch.float32
        self._source = source
        self._read = read

    def __call__(
        self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> SimpleNamespace:
        output = self._source.output(token_ids, attention_mask)
        # With a projection, CLIP pools into text_embeds; without one, into the state at the end mark. T5 does not pool.
        pooled = getattr(output, "text_embeds", None)
        if pooled is None:
            pooled = getattr(output, "pooler_output", None)
        return SimpleNamespace(
            last_hidden_state=self._read(output).float(),
            pooler_output=None if pooled is None else pooled.float(),
        )


@cache
def compel_class() -> Any:
    """Compel's class, with a fix for 2.3.1, the last for transformers 4: its blend passes its own method an unknown argument."""
    from compel import Compel

    argument, name = "should_return_tokens", "_get_conditioning_for_flattened_prompt"
    if not hasattr(Compel, name) or argument in inspect.signature(getattr(Compel, name)).parameters:
        return Compel

    class BlendingCompel(Compel):
        def _get_conditioning_for_flattened_prompt(self, prompt: Any, **_: Any) -> Any:
            return super()._get_conditioning_for_flattened_prompt(prompt)

    return BlendingCompel


def passages_side_by_side(prompt: Prompt) -> list[tuple[Passage, ...]]:
    """For each part, the passages that share its tokens: all passages of a blend, or a single one."""
    return [part.passages if isinstance(part, Blend) else (part,) for part in prompt.parts]


def compel_tree(prompt: Prompt, pieces: Callable[[Passage], Sequence[tuple[str, float]]] | None = None) -> Any:
    """``prompt`` in the form that Compel's parser returns.

    Args:
        pieces: gives a passage's texts and weights. None: those of its fragments.
    """
    from compel.prompt_parser import Blend as CompelBlend
    from compel.prompt_parser import Conjunction, FlattenedPrompt
    from compel.prompt_parser import Fragment as CompelFragment

    def compel_passage(passage: Passage) -> Any:
        children = []
        for text, weight in pieces(passage) if pieces else [(f.text, f.weight) for f in passage.fragments]:
            child = CompelFragment("", weight)
            child.text = text  # the constructor would treat backslashes as escapes
            children.append(child)
        return FlattenedPrompt(children)

    parts = [
        CompelBlend([compel_passage(p) for p in part.passages], list(part.weights), part.normalize)
        if isinstance(part, Blend)
        else compel_passage(part)
        for part in prompt.parts
    ]
    return Conjunction(parts, list(prompt.weights))
