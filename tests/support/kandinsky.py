"""A prompt of the small Kandinsky prior."""

from __future__ import annotations

from functools import cache

from diffusers_relay.pipelines.families.kandinsky22_prior import PriorSettings, run_prior
from diffusers_relay.pipelines.model.embeds import ImageEmbeds
from diffusers_relay.weighting.prior_encoder import encode_for_prior

from .without_host import counting_runtime, load


@cache
def kandinsky_prompt(prompt: str = "a red cat", negative_prompt: str = "", seed: int = 5) -> ImageEmbeds:
    prior, runtime = load("kandinsky_prior"), counting_runtime()
    text = encode_for_prior(prior, prompt, negative_prompt, syntax="compel", runtime=runtime)
    return run_prior(prior, text, PriorSettings(4, 4.0, seed), runtime)
