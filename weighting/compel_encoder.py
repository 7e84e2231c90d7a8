"""Encodes a prompt to the embeddings that the family's pipelines take, with the recipe of the family.

At weight 1, and for texts that a script would not cut, the result is bit for bit that of the diffusers pipeline's own
``encode_prompt``.
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
from . import clip_and_t5_recipe, clip_recipe, pooled_clip_and_t5_recipe
from .encoded_texts import find_texts, keep_texts, texts_key
from .prompt_text import as_typed
from .syntax import parse
from .text_job import TextJob, say_notes


@dataclass(frozen=True)
class Recipe:
    """How the prompts of one kind of family are encoded."""

    encode: Callable[[TextJob], dict[str, TextEmbeds]]
    """Job -> embeddings by field of :class:`.PromptEmbeds`: ``positive``, ``negative`` and, if the family has it, ``empty``."""
    reads_spaces: bool = False
    """The tokens depend on the number of spaces, so a text without weights is encoded exactly as typed."""


RECIPES: Mapping[TextRecipe, Recipe] = MappingProxyType(
    {
        TextRecipe.CLIP: Recipe(clip_recipe.encode),
        TextRecipe.CLIP_AND_T5: Recipe(clip_and_t5_recipe.encode, reads_spaces=True),
        TextRecipe.POOLED_CLIP_AND_T5: Recipe(pooled_clip_and_t5_recipe.encode, reads_spaces=True),
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

    In every syntax, an empty negative prompt is a script's ``negative_prompt=None``: the encoding of ``""``, or zeros if
    the model's ``force_zeros_for_empty_prompt`` is set. An empty prompt is the encoding of ``""``.

    A script cuts a text at 77 tokens. Here, a longer text is encoded in blocks of 77 tokens, split between sentences if
    possible, and the shorter of the two texts is padded with empty texts. The pooled embedding is that of the literal
    text, without syntax and cut at 77 tokens, as in a script. T5 reads a text of any length as a whole, see
    :mod:`.clip_and_t5_recipe`.

    Args:
        components: a model with text encoders.
        syntax: a key of :data:`~.syntax.SYNTAXES`.
        clip_skip: diffusers' ``clip_skip``: how many of the CLIP encoders' last layers to skip, for the prompt only.

    Returns:
        Hidden states [1, tokens, width] in the encoder's dtype on ``runtime.policy.output_device()``, and pooled embeddings
        [1, width] if the family has them.

    Raises:
        RelayError: the family does not read text, the model has no text encoder, ``clip_skip`` is out of range, the syntax is unknown or broken, or the
            weighted embeddings are out of the dtype's range.
    """
    family, policy = components.family, runtime.policy
    recipe = RECIPES.get(family.text)
    if recipe is None:
        raise RelayError(
            f"Encode Prompt: {components.source} is a {family.title}, which does not use text embeddings. "
            "Use Kandinsky Prior with a prior model, and connect its prompt to the decoder."
        )
    if components.lacks_text_encoders:
        raise RelayError(
            f"model: {components.source} ({family.title}) has no text encoder, because its file contains none. Encode the prompt with a complete "
            "model of the same kind, and connect it to the sampler of this one."
        )
    words = [embedding.token for embedding in components.embeddings]
    positive, negative = (parse(text, syntax, words=words) for text in (prompt, negative_prompt))
    if recipe.reads_spaces:
        positive, negative = as_typed(positive, prompt), as_typed(negative, negative_prompt)
    say_notes({"prompt": prompt, "negative_prompt": negative_prompt}, syntax, runtime.monitor)
    zeros = negative.is_empty and bool(components.config.get("force_zeros_for_empty_prompt"))  # only SDXL has this flag
    key = texts_key(components, (positive, negative), clip_skip, zeros)
    embeds = find_texts(key, policy.output_device())
    if embeds is None:
        embeds = recipe.encode(
            TextJob(components, (prompt, negative_prompt), positive, negative, clip_skip, zeros, runtime)
        )
        keep_texts(key, embeds)
    return PromptEmbeds(**embeds, mark=mark_of(components), has_negative=not negative.is_empty)
