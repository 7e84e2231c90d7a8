"""The recipe :attr:`.TextRecipe.CLIP`: one or two CLIP encoders, joined by width; the last one gives the pooled embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..pipelines.model.components import PipelineComponents
from ..pipelines.model.embeds import TextEmbeds
from ..pipelines.model.laws import TextLayer
from .prompt_text import plain_prompt
from .text_job import TextJob, check_clip_skip, checked_output, encoder_runs, encoders_on_device

if TYPE_CHECKING:
    import torch

    from .compel_calls import ReadLayer
    from .text_encoder import LayerEncoder

CLIP_L_ACTIVATION = "quick_gelu"
"""The activation of Stable Diffusion 1.x's text encoder; 2.x has "gelu"."""


@dataclass(frozen=True, eq=False)
class ClipStates:
    """The output of one CLIP text encoder for a job."""

    encoder: LayerEncoder
    """Reads the family's own layer, without ``clip_skip``."""
    positive: torch.Tensor
    """[1, n * 77, width], float32."""
    negative: torch.Tensor
    """[1, n * 77, width], float32."""


def encode(job: TextJob) -> dict[str, TextEmbeds]:
    """Encodes the job's texts: field of :class:`.PromptEmbeds` -> embeddings. ``hidden`` is [1, n * 77, sum of the widths]."""
    import torch

    components, family = job.components, job.components.family
    encoders = [components[name] for name in components.text_encoders]
    check_clip_skip(job, encoders)
    pooled: list[torch.Tensor] = []
    host_pooled: list[torch.Tensor] = []
    with encoders_on_device(job) as device:
        states = [read_clip(job, name, device) for name in components.text_encoders]
        last, last_encoder = states[-1].encoder, encoders[-1]
        if family.has_pooled_embeds:
            pooled = read_pooled(job, last)
        elif family.serves_host_samplers and last_encoder.config.hidden_act == CLIP_L_ACTIVATION:
            host_pooled = [last.host_pooled(job.prompt), last.host_pooled(job.negative)]
        no_text = plain_prompt("")
        empty = [last.hidden(no_text), last.pooled(no_text)] if family.drops_prompt_at_guidance_0 else []

    def embeds_of(
        name: str, states: list[torch.Tensor], pooled: torch.Tensor | None, host_pooled: torch.Tensor | None = None
    ) -> TextEmbeds:
        def out(tensor: torch.Tensor) -> torch.Tensor:
            return checked_output(tensor, name, last_encoder.dtype, job.runtime.policy, job.components)

        return TextEmbeds(
            hidden=out(torch.cat(states, dim=-1)),
            pooled=None if pooled is None else out(pooled),
            host_pooled=None if host_pooled is None else out(host_pooled),
        )

    nones = [None, None]
    embeds = {
        name: embeds_of(title, hidden, last_pooled, host)
        for name, title, hidden, last_pooled, host in zip(
            ("positive", "negative"),
            ("prompt", "negative_prompt"),
            ([clip.positive for clip in states], [clip.negative for clip in states]),
            pooled or nones,
            host_pooled or nones,
        )
    }
    if empty:
        embeds["empty"] = embeds_of("prompt", empty[:1], empty[1])
    return embeds


def read_clip(job: TextJob, name: str, device: torch.device) -> ClipStates:
    """The states of the CLIP text encoder ``name``, which is on ``device``, for both texts of the job."""
    import torch

    from .text_encoder import LayerEncoder

    source = encoder_runs(job, name, device)
    layer = LayerEncoder(source, _layer(job.components, source.encoder, 0))
    skipping = LayerEncoder(source, _layer(job.components, source.encoder, job.clip_skip)) if job.clip_skip else layer
    hidden = skipping.hidden(job.prompt)
    negative = torch.zeros_like(hidden) if job.negative_is_zeros else layer.hidden(job.negative)
    tokens = max(hidden.shape[1], negative.shape[1])
    return ClipStates(layer, skipping.padded(hidden, tokens), layer.padded(negative, tokens))


def read_pooled(job: TextJob, encoder: LayerEncoder) -> list[torch.Tensor]:
    """The pooled embeddings of the prompt and its negative, [1, width] each, float32."""
    import torch

    positive = encoder.pooled(job.prompt)
    return [positive, torch.zeros_like(positive) if job.negative_is_zeros else encoder.pooled(job.negative)]


def _layer(components: PipelineComponents, encoder: Any, clip_skip: int) -> ReadLayer:
    """The layer that diffusers' pipelines of this family read.

    Source: ``encode_prompt`` of StableDiffusionPipeline, StableDiffusionXLPipeline, StableDiffusion3Pipeline and
    StableDiffusionLatentUpscalePipeline. With ``clip_skip``, the first one fails on transformers 5.6 and later, where the
    layer norm is one level higher.
    """
    if components.family.text_layer is TextLayer.BARE:
        return lambda output: output.hidden_states[-1]
    if components.family.text_layer is TextLayer.PENULTIMATE:
        return lambda output: output.hidden_states[-(clip_skip + 2)]
    if clip_skip == 0:
        return lambda output: output.last_hidden_state
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    return lambda output: norm(output.hidden_states[-(clip_skip + 1)])
