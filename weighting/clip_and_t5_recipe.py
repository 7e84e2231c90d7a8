"""The recipe :attr:`.TextRecipe.CLIP_AND_T5`: two CLIP encoders joined by width, followed by T5's states as more tokens.

CLIP's states are padded with zeros to T5's width. The pooled embeddings of both CLIPs are joined. A model may lack T5, as many
people run it: its tokens are then zeros, as in diffusers.

A script cuts T5's text at ``max_sequence_length`` tokens, 256. Nothing is cut here: if the prompt or its negative is longer, both
are padded to the next multiple of 256, which gives the result of a script with that ``max_sequence_length``. T5's positions are
relative, so its length is not limited. Each text of ``.and()`` is padded separately.

Source: ``encode_prompt`` of StableDiffusion3Pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pipelines.model.components import PipelineComponents
from ..pipelines.model.embeds import TextEmbeds
from .clip_recipe import read_clip, read_pooled
from .t5_encoder import LENGTH
from .t5_states import read_t5
from .text_job import TextJob, check_clip_skip, checked_output, encoders_on_device

if TYPE_CHECKING:
    pass


def encode(job: TextJob) -> dict[str, TextEmbeds]:
    """Encodes the job's texts: field of :class:`.PromptEmbeds` -> embeddings. ``hidden`` is [1, n * 77 + m * 256, T5's width]."""
    import torch

    components = job.components
    *clips, t5 = components.family.text_encoders
    has_t5 = t5 in components.text_encoders
    check_clip_skip(job, [components[name] for name in clips])
    with encoders_on_device(job) as device:
        states = [read_clip(job, name, device) for name in clips]
        pooled = zip(*(read_pooled(job, clip.encoder) for clip in states))
        t5_states = read_t5(job, t5, device) if has_t5 else (None, None)

    policy, dtype = job.runtime.policy, components[clips[0]].dtype
    texts = (
        ("positive", "prompt", [clip.positive for clip in states]),
        ("negative", "negative_prompt", [clip.negative for clip in states]),
    )
    embeds = {}
    for (kind, title, of_clips), of_poolers, of_t5 in zip(texts, pooled, t5_states):
        joined = checked_output(torch.cat(of_clips, dim=-1), title, dtype, policy, job.components)
        if of_t5 is None:
            t5_tokens = joined.new_zeros(1, LENGTH, _width(components))
        else:
            t5_tokens = checked_output(of_t5, title, components[t5].dtype, policy, job.components)
        wide = torch.nn.functional.pad(joined, (0, t5_tokens.shape[-1] - joined.shape[-1]))
        embeds[kind] = TextEmbeds(
            hidden=torch.cat([wide, t5_tokens], dim=1),
            pooled=checked_output(torch.cat(of_poolers, dim=-1), title, dtype, policy, job.components),
            stand_ins=LENGTH if of_t5 is None else 0,
        )
    return embeds


def _width(components: PipelineComponents) -> int:
    width: int = components[components.family.denoiser].config.joint_attention_dim
    return width
