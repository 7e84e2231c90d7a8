"""The recipe :attr:`.TextRecipe.POOLED_CLIP_AND_T5`: T5's states, and the pooled embedding of a CLIP encoder.

A script cuts T5's text at ``max_sequence_length`` tokens, 512. Nothing is cut here: if the prompt or its negative is longer, both
are padded to the next multiple of 512. T5's positions are relative, so its length is not limited. The pooled embedding is that of
the literal text, cut at 77 tokens.

Source: ``encode_prompt`` of FluxPipeline.
"""

from __future__ import annotations

from ..pipelines.model.embeds import TextEmbeds
from .t5_states import read_t5
from .text_encoder import LayerEncoder
from .text_job import TextJob, check_clip_skip, checked_output, encoder_runs, encoders_on_device

TOKENS = 512
"""diffusers' ``max_sequence_length``."""


def encode(job: TextJob) -> dict[str, TextEmbeds]:
    """Encodes the job's texts: field of :class:`.PromptEmbeds` -> embeddings. ``hidden`` is [1, n * 512, T5's width]."""
    components, policy = job.components, job.runtime.policy
    clip, t5 = components.family.text_encoders
    check_clip_skip(job, [components[clip]])
    with encoders_on_device(job, TOKENS) as device:
        pooler = LayerEncoder(encoder_runs(job, clip, device, layers=False), lambda output: output.last_hidden_state)
        pooled = [pooler.pooled(text) for text in (job.prompt, job.negative)]
        states = read_t5(job, t5, device, TOKENS)
    return {
        kind: TextEmbeds(
            hidden=checked_output(tokens, title, components[t5].dtype, policy, components),
            pooled=checked_output(pool, title, components[clip].dtype, policy, components),
        )
        for kind, title, tokens, pool in zip(
            ("positive", "negative"), ("prompt", "negative_prompt"), states, pooled, strict=True
        )
    }
