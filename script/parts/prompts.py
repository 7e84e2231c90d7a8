"""Prompts in a script: the arguments that a pipeline takes for them."""

from typing import Any

import torch
from compel import Compel, DiffusersTextualInversionManager, ReturnedEmbeddingsType
from compel.prompt_parser import Blend, Conjunction, FlattenedPrompt


def as_conjunction(prompt: Any) -> Conjunction:
    """A text in Compel's syntax, or literal texts with weights: a list of (text, weight) for each block of 77 tokens."""
    if isinstance(prompt, str):
        return Compel.parse_prompt_string(prompt)
    return Conjunction([FlattenedPrompt(pieces) for pieces in prompt])


def compel_for(
    pipeline: Any, tokenizer: Any, text_encoder: Any, layer: Any, own_words: bool
) -> Compel:
    """Reads a text in blocks of 77 tokens, so that nothing of it is cut off."""
    return Compel(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        textual_inversion_manager=DiffusersTextualInversionManager(pipeline)
        if own_words
        else None,
        returned_embeddings_type=layer,
        truncate_long_prompts=False,
    )


def read_both(compel: Compel, prompt: Any, negative_prompt: Any) -> list[torch.Tensor]:
    """The embeddings of two prompts. The shorter one is padded."""
    both = [as_conjunction(prompt), as_conjunction(negative_prompt)]
    embeds = [compel.build_conditioning_tensor_for_conjunction(one)[0] for one in both]
    return compel.pad_conditioning_tensors_to_same_length(embeds)


@torch.no_grad()
def encode_prompt(
    pipeline: Any, prompt: Any, negative_prompt: Any = "", own_words: bool = False
) -> dict[str, torch.Tensor]:
    """Both texts with their weights, as arguments for a pipeline of Stable Diffusion 1 and 2.

    own_words: the pipeline has textual inversions.
    """
    layer = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
    compel = compel_for(
        pipeline, pipeline.tokenizer, pipeline.text_encoder, layer, own_words
    )
    positive, negative = read_both(compel, prompt, negative_prompt)
    return {"prompt_embeds": positive, "negative_prompt_embeds": negative}


@torch.no_grad()
def encode_prompt_skipping(
    pipeline: Any,
    prompt: Any,
    negative_prompt: Any = "",
    own_words: bool = False,
    skip: int = 1,
) -> dict[str, torch.Tensor]:
    """As `encode_prompt`, without the encoder's last layers for the prompt.

    clip_skip of the pipelines fails with transformers 5.6 and newer, which moved the last norm.
    """
    encoder = pipeline.text_encoder
    layers = getattr(encoder, "text_model", encoder).encoder.layers
    kept = [*layers]
    result = encode_prompt(pipeline, prompt, negative_prompt, own_words)
    del layers[len(kept) - skip :]
    try:
        skipped = encode_prompt(pipeline, prompt, negative_prompt, own_words)
    finally:
        layers.extend(kept[len(kept) - skip :])
    return {**result, "prompt_embeds": skipped["prompt_embeds"]}


@torch.no_grad()
def encode_prompt_sdxl(
    pipeline: Any, prompt: Any, negative_prompt: Any = ""
) -> dict[str, torch.Tensor]:
    """Both texts with their weights, as arguments for a pipeline of SDXL."""
    layer = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    encoders = [
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ]
    positives, negatives = [], []
    for tokenizer, text_encoder in encoders:
        if text_encoder is None:  # the refiner has only the second one
            continue
        compel = compel_for(pipeline, tokenizer, text_encoder, layer, False)
        positive, negative = read_both(compel, prompt, negative_prompt)
        positives.append(positive)
        negatives.append(negative)
    # these are of the literal text: Compel would read the signs of its syntax as words
    pooled = [
        pooled_of(compel, as_conjunction(one)) for one in (prompt, negative_prompt)
    ]
    if not negative_prompt and pipeline.config.force_zeros_for_empty_prompt:
        negatives = [torch.zeros_like(one) for one in negatives]
        pooled[1] = torch.zeros_like(pooled[1])
    return {
        "prompt_embeds": torch.cat(positives, dim=-1),
        "negative_prompt_embeds": torch.cat(negatives, dim=-1),
        "pooled_prompt_embeds": pooled[0],
        "negative_pooled_prompt_embeds": pooled[1],
    }


def pooled_of(compel: Compel, conjunction: Conjunction) -> torch.Tensor:
    """[1, width]. The pooled embedding of a blend is the blend of its texts'."""
    provider = compel.conditioning_provider
    parts = conjunction.prompts
    if len(parts) == 1 and isinstance(parts[0], Blend):
        texts = [literal_text([one]) for one in parts[0].prompts]
        each = [provider.get_pooled_embeddings([text])[..., None] for text in texts]
        weights, normalize = parts[0].weights, parts[0].normalize_weights
        return provider.apply_embedding_weights(
            torch.stack(each, dim=1), list(weights), normalize
        )[..., 0]
    return provider.get_pooled_embeddings([literal_text(parts)])


def literal_text(parts: list[Any]) -> str:
    passages = [one for part in parts for one in getattr(part, "prompts", [part])]
    return " ".join(piece.text for one in passages for piece in one.children)


def mixed(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], weight: float
) -> dict[str, torch.Tensor]:
    """The weighted mean of two prompts; `weight` is that of the other one."""
    return {name: one[name] * (1 - weight) + other[name] * weight for name in one}


def repeated(prompt: dict[str, torch.Tensor], times: int) -> dict[str, torch.Tensor]:
    """The prompt for a batch of pictures."""
    return {name: torch.cat([value] * times) for name, value in prompt.items()}
