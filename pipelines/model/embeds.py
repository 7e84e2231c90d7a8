"""The values of a DIFFUSERS_PROMPT wire: text embeddings, or CLIP image embeddings for Kandinsky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.memory_size import SizedValue
from .components import PipelineComponents
from .laws import TextLayer, TextRecipe
from .prompt_widths import check_widths
from .sdxl_sizes import SdxlSizes

if TYPE_CHECKING:
    import torch

SAME_ENCODER_TOLERANCE = 0.005
"""Relative RMS between the sampled rows of two encoders: 0.002 for a bfloat16 copy, 0.01 for weights changed by 1 %, 1.4 for another encoder."""

QUERY_WEIGHTS = tuple(
    f"{layer}.{weight}"
    for layer in ("self_attn.q_proj", "SelfAttention.q")  # the names in CLIP and T5
    for weight in ("weight", "base_layer.weight")  # the second if it has a LoRA
)


@dataclass(frozen=True, eq=False)
class EncoderMark:
    """Identifies the text encoder of an embedding by some rows of its weights, so that copies in any dtype are recognised."""

    title: str
    """The model that it came from, for messages."""
    rows: tuple[torch.Tensor, ...]
    """float32 on the CPU, one [n] tensor for each sampled weight."""
    extras: tuple[str, ...] = ()
    """The active LoRAs and textual inversions, with their strengths."""
    layer: TextLayer = TextLayer.NORMALISED
    """The hidden state of the encoder that was used."""
    recipe: TextRecipe = TextRecipe.CLIP
    """How the hidden states of the encoders were joined."""
    lacks_an_encoder: bool = False
    """The model lacked the last of its family's encoders, whose hidden states are replaced by zeros."""

    def is_same(self, other: EncoderMark) -> bool:
        if self.layer is not other.layer or self.recipe is not other.recipe or self.extras != other.extras:
            return False
        if len(self.rows) != len(other.rows) and not (self.lacks_an_encoder or other.lacks_an_encoder):
            return False
        return all(
            a.shape == b.shape
            and bool((a - b).square().mean().sqrt() <= SAME_ENCODER_TOLERANCE * a.square().mean().sqrt())
            for a, b in zip(self.rows, other.rows)
        )


def mark_of(components: PipelineComponents) -> EncoderMark:
    """The mark of the text encoders of ``components``: rows of the token table and of weights in the last layer."""
    rows = tuple(row for name in components.text_encoders for row in _sampled_rows(components[name]))
    marks = [*(lora.mark for lora in components.loras), *(embedding.mark for embedding in components.embeddings)]
    extras = tuple(sorted(mark for mark in marks if mark is not None))
    family = components.family
    lacks_an_encoder = components.text_encoders != family.text_encoders
    return EncoderMark(components.source, rows, extras, family.text_layer, family.text, lacks_an_encoder)


def _sampled_rows(encoder: Any) -> list[torch.Tensor]:
    import torch

    tokens = encoder.get_input_embeddings().weight  # [vocabulary, width]
    picked = torch.linspace(0, tokens.shape[0] - 1, 5).long()
    # Also sample the last attention block: most fine-tunes train the encoder with a frozen token table.
    last = [weight for name, weight in encoder.named_parameters() if name.endswith(QUERY_WEIGHTS)][-1]
    return [sample.detach().float().cpu().flatten() for sample in (tokens[picked.to(tokens.device)], last[:2])]


@dataclass(frozen=True, eq=False)
class TextEmbeds:
    """One encoded text. ``hidden`` is [1, tokens, width]; ``pooled`` is [1, width] if the family uses it."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None
    host_pooled: torch.Tensor | None = None
    """[1, width]: the host's ``pooled_output`` if the family's own pipelines don't use one (Stable Diffusion 1.x)."""
    stand_ins: int = 0
    """How many of the last tokens of ``hidden`` are zeros that replace an encoder that the model lacks."""


@dataclass(frozen=True, eq=False)
class PromptEmbeds(SizedValue):
    """A prompt and its negative prompt, of equal length, in the model's dtype on the host's intermediate device."""

    positive: TextEmbeds
    negative: TextEmbeds
    mark: EncoderMark
    empty: TextEmbeds | None = None
    """The text "", for a family that reads it instead of the prompt at guidance 0."""
    sizes: SdxlSizes | None = None
    """The sizes that SDXL reads beside the prompt; None: those of the picture that is painted."""
    has_negative: bool = False
    """Whether the negative prompt is a text, and not empty."""

    def tensors(self) -> list[torch.Tensor | None]:
        texts = [text for text in (self.positive, self.negative, self.empty) if text is not None]
        kept = [tensor for text in texts for tensor in (text.hidden, text.pooled, text.host_pooled)]
        return [*self.mark.rows, *kept]


@dataclass(frozen=True, eq=False)
class ImageEmbeds(SizedValue):
    """CLIP image embeddings for a Kandinsky decoder, both [1, width]."""

    positive: torch.Tensor
    negative: torch.Tensor
    title: str
    """The prior that made them, for messages."""

    def tensors(self) -> list[torch.Tensor | None]:
        return [self.positive, self.negative]


def check_prompt_fits(prompt: PromptEmbeds | ImageEmbeds, components: PipelineComponents) -> None:
    """Checks that ``components`` can use a prompt. A model without text encoders takes one of any model with the same widths.

    Raises:
        RelayError: the prompt has image embeddings but the model needs text embeddings or the other way round, or it has
            another width or comes from another text encoder.
    """
    family = components.family
    if family.takes_image_embeds:
        if not isinstance(prompt, ImageEmbeds):
            raise RelayError(
                f"prompt: {components.source} ({family.title}) needs image embeddings, but this prompt has text "
                f"embeddings of {prompt.mark.title}. Make the prompt with Kandinsky Prior or Image Prompt."
            )
        width = components[family.denoiser].config.encoder_hid_dim
        if prompt.positive.shape[-1] != width:
            raise RelayError(
                f"prompt: the image embeddings of {prompt.title} have width {prompt.positive.shape[-1]}, but {components.source} needs {width}. "
                "Use the prior that belongs to this decoder."
            )
        return
    if not isinstance(prompt, PromptEmbeds):
        raise RelayError(
            f"prompt: {components.source} ({family.title}) needs text embeddings, but this prompt has image embeddings of "
            f"{prompt.title}. Make the prompt with Encode Prompt and this model."
        )
    own = mark_of(components)
    if prompt.mark.recipe is not own.recipe:
        raise RelayError(
            f"prompt: it was encoded for {prompt.mark.title} ({prompt.mark.recipe.value}), but {components.source} "
            f"({family.title}) uses {own.recipe.value}. Encode the prompt again with this model."
        )
    if prompt.mark.layer is not own.layer:
        raise RelayError(
            f"prompt: it was encoded for {prompt.mark.title}, whose text encoder gives {prompt.mark.layer.value}, but "
            f"{components.source} ({family.title}) uses {own.layer.value}. Encode the prompt again with this model."
        )
    if components.lacks_text_encoders:
        text = prompt.positive
        check_widths(
            prompt.mark.title,
            text.hidden.shape[-1],
            None if text.pooled is None else text.pooled.shape[-1],
            components,
        )
        return
    if not prompt.mark.is_same(own) and prompt.mark.extras != own.extras:
        theirs, ours = (" and ".join(mark.extras) or "no LoRA or embedding" for mark in (prompt.mark, own))
        raise RelayError(
            f"prompt: it was encoded with {theirs} on the text encoder of {prompt.mark.title}, but {components.source} has "
            f"{ours}. Encode the prompt again with this model."
        )
    if not prompt.mark.is_same(own):
        raise RelayError(
            f"prompt: it was encoded by the text encoder of {prompt.mark.title}, which differs from that of {components.source} "
            f"({family.title}). Encode the prompt again with this model."
        )


@dataclass(frozen=True, eq=False)
class PriorTextEmbeds:
    """One text for Kandinsky's prior: ``pooled`` [1, width], ``hidden`` [1, 77, width], ``mask`` [1, 77] bool."""

    pooled: torch.Tensor
    hidden: torch.Tensor
    mask: torch.Tensor
    parts: int = 1
    """How many chunks of 77 tokens were combined."""


@dataclass(frozen=True, eq=False)
class PriorText:
    """The prior's input. ``negative`` is None for the script's ``negative_prompt=None``; ``empty`` is the encoded ""."""

    prompt: PriorTextEmbeds
    negative: PriorTextEmbeds | None
    empty: PriorTextEmbeds
