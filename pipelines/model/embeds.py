"""What goes over a DIFFUSERS_PROMPT wire: text embeddings, or CLIP image embeddings for Kandinsky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.memory_size import tensor_bytes
from .components import PipelineComponents
from .laws import TextLayer

if TYPE_CHECKING:
    import torch

SAME_ENCODER_TOLERANCE = 0.005
"""Relative RMS between the sampled rows of two encoders: a bfloat16 copy is 0.002 away, weights moved by 1 % 0.01, another 1.4."""


@dataclass(frozen=True, eq=False)
class EncoderMark:
    """Which text encoder made an embedding: some rows of its weights, so that any copy in any dtype is known again."""

    title: str
    """The model that it came from, for messages."""
    rows: tuple[torch.Tensor, ...]
    """float32 on the CPU, one [n] tensor for each weight that is sampled."""
    extras: tuple[str, ...] = ()
    """LoRAs and textual inversions that were active, with their strengths."""
    layer: TextLayer = TextLayer.NORMALISED
    """Which of the encoder's states was read."""

    def is_same(self, other: EncoderMark) -> bool:
        if self.layer is not other.layer or self.extras != other.extras or len(self.rows) != len(other.rows):
            return False
        return all(
            a.shape == b.shape
            and bool((a - b).square().mean().sqrt() <= SAME_ENCODER_TOLERANCE * a.square().mean().sqrt())
            for a, b in zip(self.rows, other.rows)
        )


def mark_of(components: PipelineComponents) -> EncoderMark:
    """The mark of the text encoders that ``components`` encodes with: token rows, and weights of the last layer."""
    rows = tuple(row for name in components.family.text_encoders for row in _sampled_rows(components[name]))
    marks = [*(lora.mark for lora in components.loras), *(embedding.mark for embedding in components.embeddings)]
    extras = tuple(sorted(mark for mark in marks if mark is not None))
    return EncoderMark(components.source, rows, extras, components.family.text_layer)


def _sampled_rows(encoder: Any) -> list[torch.Tensor]:
    import torch

    tokens = encoder.get_input_embeddings().weight  # [vocabulary, width]
    picked = torch.linspace(0, tokens.shape[0] - 1, 5).long()
    # The last attention block too, by itself: most fine-tunes train the encoder with the token table frozen.
    # A layer that carries a LoRA has its own weight one level down.
    attention = ("self_attn.q_proj.weight", "self_attn.q_proj.base_layer.weight")
    last = [weight for name, weight in encoder.named_parameters() if name.endswith(attention)][-1]
    return [sample.detach().float().cpu().flatten() for sample in (tokens[picked.to(tokens.device)], last[:2])]


@dataclass(frozen=True, eq=False)
class TextEmbeds:
    """One text, encoded. ``hidden`` [1, tokens, width]; ``pooled`` [1, width] where the family has it."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None
    host_pooled: torch.Tensor | None = None
    """[1, width]: the host's ``pooled_output`` where the family's own pipelines read none (Stable Diffusion 1.x)."""


@dataclass(frozen=True, eq=False)
class PromptEmbeds:
    """A prompt and its negative, of equal length, in the model's dtype on the host's intermediate device."""

    positive: TextEmbeds
    negative: TextEmbeds
    mark: EncoderMark
    empty: TextEmbeds | None = None
    """The text "", for a family that reads it in the place of the prompt at guidance 0."""

    def get_ram_usage(self) -> int:
        """Bytes that this value keeps in memory, see :meth:`.PipelineComponents.get_ram_usage`."""
        texts = [text for text in (self.positive, self.negative, self.empty) if text is not None]
        tensors = [tensor for text in texts for tensor in (text.hidden, text.pooled, text.host_pooled)]
        return tensor_bytes([*self.mark.rows, *tensors])


@dataclass(frozen=True, eq=False)
class ImageEmbeds:
    """CLIP image embeddings for a Kandinsky decoder. Both [1, width]."""

    positive: torch.Tensor
    negative: torch.Tensor
    title: str
    """The prior that made them, for messages."""

    def get_ram_usage(self) -> int:
        """Bytes that this value keeps in memory, see :meth:`.PipelineComponents.get_ram_usage`."""
        return tensor_bytes([self.positive, self.negative])


def check_prompt_fits(prompt: PromptEmbeds | ImageEmbeds, components: PipelineComponents) -> None:
    """Refuses a prompt that ``components`` cannot read.

    Raises:
        RelayError: image embeddings for a text model or the other way round, another width, another text encoder.
    """
    family = components.family
    if family.takes_image_embeds:
        if not isinstance(prompt, ImageEmbeds):
            raise RelayError(
                f"prompt: {components.source} ({family.title}) is painted from image embeddings, but this prompt holds text "
                f"embeddings of {prompt.mark.title}. Make the prompt with Kandinsky Prior or Image Prompt."
            )
        wanted = components[family.denoiser].config.encoder_hid_dim
        if prompt.positive.shape[-1] != wanted:
            raise RelayError(
                f"prompt: the image embeddings of {prompt.title} are {prompt.positive.shape[-1]} wide, and {components.source} takes {wanted}. "
                "Use the prior that belongs to this decoder."
            )
        return
    if not isinstance(prompt, PromptEmbeds):
        raise RelayError(
            f"prompt: {components.source} ({family.title}) reads text embeddings, but this prompt holds image embeddings of "
            f"{prompt.title}. Make the prompt with Encode Prompt and this model."
        )
    own = mark_of(components)
    if prompt.mark.layer is not own.layer:
        raise RelayError(
            f"prompt: it was encoded for {prompt.mark.title}, which reads {prompt.mark.layer.value}, of its text encoder, and "
            f"{components.source} ({family.title}) reads {own.layer.value}. Encode the prompt again with this model."
        )
    if not prompt.mark.is_same(own) and prompt.mark.extras != own.extras:
        theirs, ours = (" and ".join(mark.extras) or "no LoRA or embedding" for mark in (prompt.mark, own))
        raise RelayError(
            f"prompt: it was encoded with {theirs} on the text encoder of {prompt.mark.title}, and {components.source} has "
            f"{ours} there. Encode the prompt again with this model."
        )
    if not prompt.mark.is_same(own):
        raise RelayError(
            f"prompt: it was encoded by the text encoder of {prompt.mark.title}, which is not the one of {components.source} "
            f"({family.title}). Encode the prompt again with this model."
        )


@dataclass(frozen=True, eq=False)
class PriorTextEmbeds:
    """One text for Kandinsky's prior: ``pooled`` [1, width], ``hidden`` [1, 77, width], ``mask`` [1, 77] bool."""

    pooled: torch.Tensor
    hidden: torch.Tensor
    mask: torch.Tensor
    parts: int = 1
    """How many times 77 tokens were laid over each other."""


@dataclass(frozen=True, eq=False)
class PriorText:
    """What the prior reads. ``negative`` None is the script's ``negative_prompt=None``; ``empty`` encodes ""."""

    prompt: PriorTextEmbeds
    negative: PriorTextEmbeds | None
    empty: PriorTextEmbeds
