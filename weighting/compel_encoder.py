"""Components and a prompt -> the embeddings that the family's pipelines take. How they are made is the recipe that its row names.

At weight 1, and where a script would cut nothing off, the result is, bit for bit, what the diffusers pipeline's own
``encode_prompt`` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..pipelines.base.errors import RelayError
from ..pipelines.device.out_of_memory import tried_once_more
from ..pipelines.device.runtime import Runtime
from ..pipelines.model.components import PipelineComponents
from ..pipelines.model.embeds import PromptEmbeds, TextEmbeds, mark_of
from ..pipelines.model.laws import TextRecipe
from . import clip_and_t5_recipe, clip_recipe
from .encoded_texts import find_texts, keep_texts, wanted_texts
from .prompt_text import as_typed
from .syntax import parse
from .text_job import TextJob, say_notes


@dataclass(frozen=True)
class Recipe:
    """How one kind of family's prompt is encoded."""

    encode: Callable[[TextJob], dict[str, TextEmbeds]]
    """A job -> its texts, by the fields of :class:`.PromptEmbeds`: ``positive``, ``negative`` and, where a family has it, ``empty``."""
    reads_spaces: bool = False
    """A space more or less makes other tokens, so that a text with no weights is given as it was typed."""


RECIPES: Mapping[TextRecipe, Recipe] = MappingProxyType(
    {
        TextRecipe.CLIP: Recipe(clip_recipe.encode),
        TextRecipe.CLIP_AND_T5: Recipe(clip_and_t5_recipe.encode, reads_spaces=True),
    }
)


@tried_once_more
def encode_prompt(
    components: PipelineComponents,
    prompt: str,
    negative_prompt: str,
    runtime: Runtime,
    *,
    syntax: str,
    clip_skip: int = 0,
) -> PromptEmbeds:
    """Encodes a prompt and its negative for a family that reads text.

    An empty negative prompt is a script's ``negative_prompt=None`` in every syntax: the encoding of ``""``, or zeros
    where the model's ``force_zeros_for_empty_prompt`` asks for them. An empty prompt is the encoding of ``""``.

    A script cuts a text at 77 tokens; this does not, in any syntax: a longer text is encoded 77 tokens at a time,
    split between sentences where it can be, and the shorter of the two is filled up with empty texts. The pooled
    embedding is that of the literal text, with the syntax taken off and cut at 77 tokens, as in a script. T5 reads a text
    as a whole, however long, see :mod:`.clip_and_t5_recipe`.

    Args:
        components: a model with text encoders.
        syntax: a key of :data:`~.syntax.SYNTAXES`.
        clip_skip: diffusers' ``clip_skip``: how many of the CLIP encoders' last layers to leave out, of the prompt only.

    Returns:
        Hidden states [1, tokens, width] in the encoder's dtype on ``runtime.policy.output_device()``, pooled [1, width] where
        the family has them.

    Raises:
        RelayError: the family reads no text, ``clip_skip`` is out of range, the syntax is unknown or broken, or
            weights carry the embeddings out of the dtype's range.
    """
    family, policy = components.family, runtime.policy
    recipe = RECIPES.get(family.text)
    if recipe is None:
        raise RelayError(
            f"Encode Prompt: {components.source} is a {family.title}, which does not use text embeddings. "
            "Use Kandinsky Prior with a prior model, and connect its prompt to the decoder."
        )
    words = [embedding.token for embedding in components.embeddings]
    positive, negative = (parse(text, syntax, words=words) for text in (prompt, negative_prompt))
    if recipe.reads_spaces:
        positive, negative = as_typed(positive, prompt), as_typed(negative, negative_prompt)
    say_notes({"prompt": prompt, "negative_prompt": negative_prompt}, syntax, runtime.monitor)
    zeros = negative.is_empty and bool(components.config.get("force_zeros_for_empty_prompt"))  # a flag of SDXL's alone
    wanted = wanted_texts(components, (positive, negative), clip_skip, zeros)
    embeds = find_texts(wanted, policy.output_device())
    if embeds is None:
        embeds = recipe.encode(
            TextJob(components, (prompt, negative_prompt), positive, negative, clip_skip, zeros, runtime)
        )
        keep_texts(wanted, embeds)
    return PromptEmbeds(**embeds, mark=mark_of(components))
