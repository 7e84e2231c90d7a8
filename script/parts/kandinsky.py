"""Kandinsky 2.2 in a script. Its latents have one scale, that of its autoencoder MoVQ."""

import copy
from typing import Any

import torch
from compel import ReturnedEmbeddingsType
from diffusers.image_processor import VaeImageProcessor

from .pictures import to_pil
from .prompts import as_conjunction, compel_for, literal_text


@torch.no_grad()
def encode_movq(pipeline: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Pictures -> Kandinsky's latents."""
    movq = pipeline.movq
    return movq.encode((2 * pictures - 1).to(movq.device, movq.dtype)).latents


@torch.no_grad()
def decode_movq(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
    """Kandinsky's latents -> pictures, [B, 3, H, W] in 0..1."""
    movq = pipeline.movq
    pictures = movq.decode(
        latents.to(movq.device, movq.dtype), force_not_quantize=True
    ).sample
    return VaeImageProcessor().postprocess(pictures, output_type="pt").float().cpu()


class Latents:
    """Stands in for MoVQ in a pipeline that only takes pictures: gives these latents for any picture, and keeps the last ones.

    So nothing is decoded and encoded between two models. It is also a way round two faults: the image-to-image pipelines
    exchange height and width, and the pipelines with a hint have no output_type="latent".
    """

    def __init__(self, movq: Any, latents: torch.Tensor | None = None) -> None:
        self.config, self.dtype = movq.config, movq.dtype
        self.latents = latents

    def encode(self, pictures: torch.Tensor) -> dict[str, torch.Tensor | None]:
        return {"latents": self.latents}

    def decode(
        self, latents: torch.Tensor, force_not_quantize: bool = False
    ) -> dict[str, torch.Tensor]:
        self.latents = latents
        return {"sample": latents}


def with_movq(pipeline: Any, movq: Any) -> Any:
    """The same pipeline with another autoencoder."""
    other = copy.copy(pipeline)
    other.movq = movq
    return other


def beginning_with(pipeline: Any, latents: torch.Tensor) -> Any:
    """The same pipeline, which begins with these latents, whatever picture it is given."""
    return with_movq(pipeline, Latents(pipeline.movq, latents))


@torch.no_grad()
def embed_picture(prior: Any, picture: torch.Tensor) -> dict[str, torch.Tensor]:
    """A picture as a prompt. The negative one is that of a black picture."""
    encoder = prior.image_encoder
    pixels = prior.image_processor(to_pil(picture), return_tensors="pt").pixel_values
    positive = encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds
    negative = prior.get_zero_embed(1, device=encoder.device)
    return {"image_embeds": positive, "negative_image_embeds": negative}


@torch.no_grad()
def with_weights(prior: Any, *texts: Any) -> Any:
    """The prior, which reads these texts in Compel's syntax. It is then called with the literal texts.

    A text of more than 77 tokens can't be read: the prior would cut it off.
    """
    layer = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
    compel = compel_for(prior, prior.tokenizer, prior.text_encoder, layer, False)
    read = {}
    for text in texts:
        conjunction = as_conjunction(text)
        states = compel.build_conditioning_tensor_for_conjunction(conjunction)[0]
        if states.shape[1] > prior.tokenizer.model_max_length:
            raise ValueError(f"{text!r} has more tokens than the prior reads.")
        read[literal_text(conjunction.prompts)] = states[0]
    own = prior._encode_prompt

    def encode(
        prompt: Any, device: Any, count: int, guided: bool, negative: Any = None
    ) -> Any:
        pooled, states, mask = own(prompt, device, count, guided, negative)
        rows = [*prompt] if isinstance(prompt, list) else [prompt]
        if guided:
            rows = [*(negative or [""] * len(rows)), *rows]
        for row, text in enumerate(rows):
            states[row] = read.get(text, states[row])
        return pooled, states, mask

    other = copy.copy(prior)
    other._encode_prompt = encode
    return other


def literal(prompt: Any) -> str:
    """A prompt without its weights."""
    return literal_text(as_conjunction(prompt).prompts)
