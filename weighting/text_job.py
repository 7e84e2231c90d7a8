"""The input of text recipes, and what they share: encoders on the device, the check of ``clip_skip``, and results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..pipelines.adapters.lora import active_loras
from ..pipelines.adapters.textual_inversion import active_embeddings, token_expansions
from ..pipelines.base.errors import RelayError
from ..pipelines.base.monitor import Monitor
from ..pipelines.device.offload import OffloadPolicy, Stage
from ..pipelines.device.runtime import Runtime
from ..pipelines.device.working_memory import T5_TOKENS, text_bytes
from ..pipelines.model.broken_weights import broken_weights
from ..pipelines.model.components import PipelineComponents
from ..pipelines.model.laws import TextLayer
from .foreign import notes_on
from .prompt_text import Prompt

if TYPE_CHECKING:
    import torch

    from .encoder_runs import TextEncoder


@dataclass(frozen=True)
class TextJob:
    """A prompt and its negative to encode for one model."""

    components: PipelineComponents
    texts: tuple[str, str]
    """The prompt and its negative as typed."""
    prompt: Prompt
    negative: Prompt
    clip_skip: int
    negative_is_zeros: bool
    """The negative prompt is empty, and the model uses zeros for it instead of the encoding of ""."""
    runtime: Runtime


def tokenizer_of(encoder: str) -> str:
    """The name of the tokenizer of the text encoder ``encoder``."""
    return encoder.replace("text_encoder", "tokenizer")


@contextmanager
def encoders_on_device(job: TextJob, tokens: int = T5_TOKENS) -> Iterator[torch.device]:
    """Brings all text encoders of the job's model to the device, with its LoRAs and embeddings, and yields the device.

    ``tokens``: an encoder without a limit reads a multiple of this.
    """
    import torch

    components, names = job.components, job.components.text_encoders
    encoders = [components[name] for name in names]
    on_device = job.runtime.policy.on_device(Stage.TEXT, encoders, text_bytes(encoders, job.texts, tokens))
    with torch.no_grad(), on_device as device, active_loras(components, names), active_embeddings(components):
        yield device


def encoder_runs(job: TextJob, name: str, device: torch.device, *, layers: bool = True) -> TextEncoder:
    """The text encoder ``name``, ready to run. ``layers``: return the hidden states of all layers, not only the last."""
    from .encoder_runs import TextEncoder

    monitor = job.runtime.monitor
    monitor.check()
    encoder, tokenizer = job.components[name], job.components[tokenizer_of(name)]
    return TextEncoder(
        encoder, tokenizer, device, token_expansions(job.components, tokenizer), monitor.check, layers=layers
    )


def say_notes(texts: Mapping[str, str], syntax: str, monitor: Monitor) -> None:
    """Tells the user which parts of ``texts`` are read as text but may be meant as syntax. ``texts``: input name -> text."""
    for title, text in texts.items():
        for note in notes_on(text, syntax):
            monitor.say(f"{title}: {note}")


def check_clip_skip(job: TextJob, clip_encoders: Sequence[Any]) -> None:
    """
    Raises:
        RelayError: the model's CLIP text encoders can't skip that many layers.
    """
    clip_skip, components = job.clip_skip, job.components
    layers = min(encoder.config.num_hidden_layers for encoder in clip_encoders)
    most = {TextLayer.NORMALISED: layers, TextLayer.PENULTIMATE: layers - 1, TextLayer.BARE: 0}[
        components.family.text_layer
    ]
    if most == 0 and clip_skip != 0:
        raise RelayError(
            f"clip_skip: {components.source} ({components.family.title}) always reads the last layer of its text encoder, "
            f"so {clip_skip} can't be skipped. Set clip_skip to 0."
        )
    if not 0 <= clip_skip <= most:
        raise RelayError(
            f"clip_skip: {clip_skip} layers can't be skipped in {components.source}. Its text encoder has {layers} layers: use 0 to {most}."
        )


def checked_output(
    tensor: torch.Tensor, name: str, dtype: torch.dtype, policy: OffloadPolicy, components: PipelineComponents
) -> torch.Tensor:
    """``tensor`` in ``dtype`` on the device that keeps results. ``name``: the input that it comes from, for errors.

    Raises:
        RelayError: its values are out of the range of ``dtype``, or an encoder has NaN or infinite weights.
    """
    result = tensor.to(dtype)
    if not bool(result.isfinite().all()):
        if broken := broken_weights({encoder: components[encoder] for encoder in components.text_encoders}):
            raise RelayError(f"{name}: {components.source} encoded it to NaN or infinite values. {broken}")
        raise RelayError(
            f"{name}: the embeddings are too large for {str(dtype).removeprefix('torch.')}. Use smaller weights: weights above 2 rarely help."
        )
    return result.to(policy.output_device())
