"""Caches text embeddings, so that nodes with the same text and encoders encode it once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..pipelines.base.encoded_once import ENCODED, EncodingKey
from ..pipelines.model.components import PipelineComponents
from ..pipelines.model.embeds import PriorTextEmbeds, TextEmbeds
from .prompt_text import Prompt

if TYPE_CHECKING:
    import torch

Embeds = TypeVar("Embeds", TextEmbeds, PriorTextEmbeds)


def texts_key(components: PipelineComponents, texts: tuple[Prompt, ...], *settings: Hashable) -> EncodingKey:
    """The cache key of ``texts``, from any syntax, encoded with the text encoders, LoRAs and embeddings of ``components``.

    Args:
        settings: other values that change the encoding, such as ``clip_skip``.
    """
    names = components.text_encoders
    encoders = [components[name] for name in names]
    tokenizers = [components[name.replace("text_encoder", "tokenizer")] for name in names]
    loras = [
        (lora.weights, strengths)
        for lora in components.loras
        if any(strengths := tuple(lora.strength_in(name) for name in names))
    ]
    owners = (
        *encoders,
        *tokenizers,
        *(weights for weights, _ in loras),
        *(embedding.file for embedding in components.embeddings),
    )
    content = (
        components.family.name,
        tuple(encoder.dtype for encoder in encoders),
        tuple(strengths for _, strengths in loras),
        tuple(embedding.token for embedding in components.embeddings),
        texts,
        settings,
    )
    return EncodingKey("prompt", owners, content)


def find_texts(key: EncodingKey, device: torch.device) -> dict[str, Any] | None:
    """The embeddings that :func:`keep_texts` stored, on ``device``, or None."""
    found = ENCODED.find(key)
    return None if found is None else {name: _moved(embeds, device) for name, embeds in found.items()}


def keep_texts(key: EncodingKey, embeds: Mapping[str, Embeds]) -> None:
    """Stores a copy of ``embeds`` on the CPU."""
    on_cpu = {name: _moved(text, "cpu") for name, text in embeds.items()}
    ENCODED.keep(key, on_cpu, sum(tensor.nbytes for text in on_cpu.values() for tensor in _tensors(text).values()))


def _moved(embeds: Embeds, device: torch.device | str) -> Embeds:
    return replace(embeds, **{name: tensor.to(device) for name, tensor in _tensors(embeds).items()})


def _tensors(embeds: TextEmbeds | PriorTextEmbeds) -> dict[str, Any]:
    return {name: value for name, value in vars(embeds).items() if hasattr(value, "nbytes")}
