"""How Compel is called: the class to use, a text encoder as it wants to see one, and its own tree of a prompt."""

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
"""Takes the wanted hidden state [1, tokens, width] out of a text encoder's output."""


class Layer:
    """A text encoder as Compel calls one, with the wanted layer in the place of the last.

    Everything is given in float32, so that weights are not applied in a half-precision model's dtype; at weight 1 the
    way back to that dtype keeps every bit.
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
        # A CLIP with a projection pools into that, one without gives the state at the end mark; T5 pools nothing.
        pooled = getattr(output, "text_embeds", None)
        if pooled is None:
            pooled = getattr(output, "pooler_output", None)
        return SimpleNamespace(
            last_hidden_state=self._read(output).float(),
            pooler_output=None if pooled is None else pooled.float(),
        )


@cache
def compel_class() -> Any:
    """Compel; the last one for transformers 4, 2.3.1, mended: its blend gives its own method an argument that this does not take."""
    from compel import Compel

    argument, name = "should_return_tokens", "_get_conditioning_for_flattened_prompt"
    if not hasattr(Compel, name) or argument in inspect.signature(getattr(Compel, name)).parameters:
        return Compel

    class BlendingCompel(Compel):
        def _get_conditioning_for_flattened_prompt(self, prompt: Any, **_: Any) -> Any:
            return super()._get_conditioning_for_flattened_prompt(prompt)

    return BlendingCompel


def passages_side_by_side(prompt: Prompt) -> list[tuple[Passage, ...]]:
    """The passages that take the same tokens, part by part: those of a blend lie over each other."""
    return [part.passages if isinstance(part, Blend) else (part,) for part in prompt.parts]


def compel_tree(prompt: Prompt, pieces: Callable[[Passage], Sequence[tuple[str, float]]] | None = None) -> Any:
    """``prompt`` as Compel's parser gives one.

    Args:
        pieces: a passage's texts with their weights, where these are not its fragments'.
    """
    from compel.prompt_parser import Blend as CompelBlend
    from compel.prompt_parser import Conjunction, FlattenedPrompt
    from compel.prompt_parser import Fragment as CompelFragment

    def passage(one: Passage) -> Any:
        children = []
        for text, weight in pieces(one) if pieces else [(f.text, f.weight) for f in one.fragments]:
            child = CompelFragment("", weight)
            child.text = text  # its constructor would take backslashes for escapes
            children.append(child)
        return FlattenedPrompt(children)

    parts = [
        CompelBlend([passage(p) for p in part.passages], list(part.weights), part.normalize)
        if isinstance(part, Blend)
        else passage(part)
        for part in prompt.parts
    ]
    return Conjunction(parts, list(prompt.weights))
