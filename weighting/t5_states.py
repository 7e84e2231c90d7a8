"""The states of a model's T5 encoder for both texts of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .t5_encoder import LENGTH, T5Encoder, t5_length
from .text_job import TextJob, encoder_runs, tokenizer_of

if TYPE_CHECKING:
    import torch


def read_t5(job: TextJob, name: str, device: torch.device, step: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    """T5's states for the prompt and its negative: [1, tokens, width], equally long, float32.

    ``name``: the encoder, which is on ``device``. The tokens are a multiple of ``step``.
    """
    tokenizer = job.components[tokenizer_of(name)]
    both = (job.prompt, job.negative)
    encoder = T5Encoder(encoder_runs(job, name, device, layers=False), t5_length(tokenizer, both, step))
    positive, negative = (encoder.hidden(text) for text in both)
    tokens = max(positive.shape[1], negative.shape[1])
    return encoder.padded(positive, tokens), encoder.padded(negative, tokens)
