"""The recipes with an LLM as text encoder, which reads the prompt inside a template.

The text has as many states as the LLM has tokens for it, so a prompt and its negative differ in length. Nothing is cut: a text that the
denoiser has no positions for is refused. The template is the one of diffusers' pipelines; one in a model's files is code (Jinja) and is
not read.

Weights: empty + weight * (state - empty) for each token of the weighted text. ``empty`` is the state at the same place of the same
text with all its words replaced by the padding token, so the template and the positions are the same. The template's own tokens always
have weight 1.

Source: ``_encode_prompt`` of ZImagePipeline, ``_get_qwen_prompt_embeds`` of QwenImagePipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..pipelines.base.errors import RelayError
from ..pipelines.model.embeds import TextEmbeds
from ..pipelines.model.laws import TextRecipe
from ..pipelines.model.text_room import most_text_tokens
from .compel_calls import passages_side_by_side
from .prompt_text import Blend, Passage, Prompt
from .text_job import TextJob, checked_output, encoder_runs, encoders_on_device, tokenizer_of
from .token_weights import weighed_tokens

if TYPE_CHECKING:
    import torch

    from .encoder_runs import TextEncoder


@dataclass(frozen=True)
class Template:
    """What stands around the prompt, and which states the denoiser reads."""

    before: str
    after: str
    layer: int
    """Index into the encoder's ``hidden_states``."""
    dropped: int = 0
    """The denoiser does not read this many tokens at the start."""
    padded_to: int = 0
    """Tokens: texts are padded to a multiple of it, as in the pipeline. The padding is masked and not read; it only decides the last
    bits. 0: no padding."""


ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
TEMPLATES: Mapping[TextRecipe, Template] = MappingProxyType(
    {
        TextRecipe.LLM_CHAT: Template("<|im_start|>user\n", ANSWER, layer=-2, padded_to=512),
        TextRecipe.LLM_DESCRIPTION: Template(
            "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
            "objects and background:<|im_end|>\n<|im_start|>user\n",
            ANSWER,
            layer=-1,
            dropped=34,
        ),
    }
)


def encode(job: TextJob) -> dict[str, TextEmbeds]:
    """Encodes the job's texts: field of :class:`.PromptEmbeds` -> embeddings. ``hidden`` is [1, tokens, width].

    Raises:
        RelayError: ``clip_skip`` is set, or the denoiser can't read that many tokens.
    """
    components = job.components
    family = components.family
    if job.clip_skip:
        raise RelayError(
            f"clip_skip: {components.source} ({family.title}) has no CLIP text encoder, so {job.clip_skip} can't be skipped. Set clip_skip to 0."
        )
    (name,) = family.text_encoders
    texts = (("positive", "prompt", job.prompt), ("negative", "negative_prompt", job.negative))
    template, most = TEMPLATES[family.text], most_text_tokens(components)
    readings = {kind: read(components[tokenizer_of(name)], template, text) for kind, _, text in texts}
    for kind, title, _ in texts:
        tokens = sum(part.tokens for part in readings[kind]) - template.dropped * len(readings[kind])
        if most is not None and tokens > most:
            raise RelayError(
                f"{title}: it has {tokens:,} tokens with the model's template, and the {family.denoiser} of {components.source} reads at most "
                f"{most:,}. Shorten it."
            )
    with encoders_on_device(job) as device:
        encoder = LlmEncoder(encoder_runs(job, name, device), template)
        hidden = {kind: encoder.hidden(parts) for kind, parts in readings.items()}
    dtype, policy = components[name].dtype, job.runtime.policy
    return {
        kind: TextEmbeds(hidden=checked_output(hidden[kind], title, dtype, policy, components))
        for kind, title, _ in texts
    }


@dataclass(frozen=True)
class Reading:
    """The tokens of one text inside the template."""

    ids: tuple[int, ...]
    empty: tuple[int, ...]
    """The same without the text: padding tokens in its place."""
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """One part of a prompt: texts of equal length that are averaged, usually one."""

    readings: tuple[Reading, ...]
    weight: float
    shares: tuple[float, ...] = ()
    """The weights of a blend's texts; empty for one text."""
    normalize: bool = False
    """Divide by the sum of the shares."""

    @property
    def tokens(self) -> int:
        return len(self.readings[0].ids)


def read(tokenizer: Any, template: Template, prompt: Prompt) -> list[Part]:
    """The tokens of each part of a prompt. The shorter texts of a blend are filled up with padding tokens, at the text's end."""
    parts = []
    for part, passages, weight in zip(prompt.parts, passages_side_by_side(prompt), prompt.weights):
        readings = [_reading(tokenizer, template, passage) for passage in passages]
        longest = max(len(one.ids) for one in readings)
        end = len(tokenizer(template.after, add_special_tokens=False).input_ids)
        filled = tuple(_filled(one, longest, end, tokenizer.pad_token_id) for one in readings)
        blend = (part.weights, part.normalize) if isinstance(part, Blend) else ()
        parts.append(Part(filled, weight, *blend))
    return parts


def _reading(tokenizer: Any, template: Template, passage: Passage) -> Reading:
    ids, owners = weighed_tokens(tokenizer, passage, template.before, template.after)
    return Reading(
        ids=tuple(ids),
        empty=tuple(one if owner is None else tokenizer.pad_token_id for one, owner in zip(ids, owners)),
        weights=tuple(1.0 if owner is None else passage.fragments[owner].weight for owner in owners),
    )


def _filled(reading: Reading, tokens: int, end: int, padding: int) -> Reading:
    """``reading`` with padding tokens before its last ``end`` tokens, which are the template's."""
    more, at = tokens - len(reading.ids), len(reading.ids) - end

    def fill(values: Sequence[Any], value: Any) -> tuple[Any, ...]:
        return (*values[:at], *(value,) * more, *values[at:])

    return Reading(fill(reading.ids, padding), fill(reading.empty, padding), fill(reading.weights, 1.0))


class LlmEncoder:
    """An LLM that is on its device. It runs once for the same tokens."""

    def __init__(self, source: TextEncoder, template: Template) -> None:
        self._source = source
        self._template = template
        self._states: dict[tuple[int, ...], torch.Tensor] = {}

    def hidden(self, parts: Sequence[Part]) -> torch.Tensor:
        """[1, tokens, width], float32: the parts one after the other."""
        import torch

        return torch.cat([self._part(part) for part in parts])[None]

    def _part(self, part: Part) -> torch.Tensor:
        import torch
        from compel import EmbeddingsProvider

        each = [self._weighed(one, part.weight) for one in part.readings]
        if not part.shares:
            return each[0]
        stacked = torch.stack(each)[None]  # [1, texts, tokens, width]
        mean: torch.Tensor = EmbeddingsProvider.apply_embedding_weights(stacked, list(part.shares), part.normalize)[0]
        return mean

    def _weighed(self, reading: Reading, weight: float) -> torch.Tensor:
        """[tokens, width]: the states of a text with its tokens' weights, all multiplied by the weight of its part."""
        import torch

        states = self._read(reading.ids)
        weights = torch.tensor(reading.weights, device=states.device)[self._template.dropped :, None] * weight
        if bool((weights == 1).all()):
            return states
        empty = self._read(reading.empty)
        return torch.where(weights == 1, states, empty + weights * (states - empty))

    def _read(self, ids: tuple[int, ...]) -> torch.Tensor:
        """[tokens that the denoiser reads, width], float32."""
        if ids not in self._states:
            source, template = self._source, self._template
            length = -(-len(ids) // template.padded_to) * template.padded_to if template.padded_to else len(ids)
            padded = source.tokenizer.pad(
                {"input_ids": [list(ids)]}, padding="max_length", max_length=length, return_tensors="pt"
            )
            mask = padded["attention_mask"].to(source.device)
            source.check()
            output = source.encoder(
                input_ids=padded["input_ids"].to(source.device),
                attention_mask=mask.bool() if template.padded_to else mask,
                output_hidden_states=True,
                use_cache=False,
            )
            self._states[ids] = output.hidden_states[template.layer][mask.bool()][template.dropped :].float()
        return self._states[ids]
