"""Encodes a prompt for Kandinsky 2.2's prior, which reads at most 77 tokens of one CLIP text encoder, with a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..pipelines.base.errors import RelayError
from ..pipelines.device.offload import Stage
from ..pipelines.device.out_of_memory import tried_once_more
from ..pipelines.device.runtime import Runtime
from ..pipelines.device.working_memory import text_bytes
from ..pipelines.model.components import PipelineComponents
from ..pipelines.model.embeds import PriorText, PriorTextEmbeds
from ..pipelines.model.family import Task
from .encoded_texts import find_texts, keep_texts, texts_key
from .prompt_text import Prompt
from .syntax import parse
from .text_job import checked_output, say_notes, tokenizer_of

if TYPE_CHECKING:
    import torch

    from .text_encoder import LayerEncoder


@tried_once_more
def encode_for_prior(
    components: PipelineComponents,
    prompt: str,
    negative_prompt: str,
    runtime: Runtime,
    *,
    syntax: str,
) -> PriorText:
    """Encodes the prompt, its negative and the empty text for Kandinsky 2.2's prior, one row each.

    The prior reads at most 77 tokens. A longer text, or a text with ``.and()``, has several parts of 77 tokens, which are
    averaged: each position is the mean of the parts that have a token there. A script cuts the text instead; the mean is
    this pack's own method, so that every word has an effect. The monitor tells the user. The pooled embedding is that of the
    literal text, without syntax and cut at 77 tokens, as in a script.

    Args:
        components: a Kandinsky 2.2 prior.
        syntax: a key of :data:`~.syntax.SYNTAXES`.

    Returns:
        Rows in the encoder's dtype on ``runtime.policy.output_device()``. ``negative`` is None if the negative prompt is
        empty, like a script's ``negative_prompt=None``.

    Raises:
        RelayError: ``components`` is not a prior, the syntax is unknown or broken, or the weighted embeddings are out
            of the dtype's range.
    """
    if Task.PRIOR not in components.family.pipeline_classes:
        raise RelayError(
            f"Kandinsky Prior: {components.source} is a {components.family.title}, not a prior. Load a Kandinsky 2.2 prior."
        )
    policy, monitor = runtime.policy, runtime.monitor
    say_notes({"prompt": prompt, "negative_prompt": negative_prompt}, syntax, monitor)
    texts = {"prompt": parse(prompt, syntax), "negative_prompt": parse(negative_prompt, syntax), "": parse("", syntax)}
    key = texts_key(components, tuple(texts.values()))
    rows: dict[str, PriorTextEmbeds] | None = find_texts(key, policy.output_device())
    if rows is None:
        rows = _encode_rows(components, texts, runtime)
        keep_texts(key, rows)
    for title, row in rows.items():
        if row.parts > 1:
            monitor.say(
                f"{title}: the prior reads 77 tokens, and this text needs {row.parts} times as many. The {row.parts} parts were averaged token by token."
            )
    return PriorText(
        prompt=rows["prompt"],
        negative=None if texts["negative_prompt"].is_empty else rows["negative_prompt"],
        empty=rows[""],
    )


def _encode_rows(
    components: PipelineComponents, texts: Mapping[str, Prompt], runtime: Runtime
) -> dict[str, PriorTextEmbeds]:
    import torch

    from .encoder_runs import TextEncoder
    from .text_encoder import LayerEncoder

    policy, monitor = runtime.policy, runtime.monitor
    (name,) = components.family.text_encoders
    encoder, tokenizer = components[name], components[tokenizer_of(name)]
    rows: dict[str, PriorTextEmbeds] = {}
    working_bytes = text_bytes([encoder], [text.text for text in texts.values()])
    with torch.no_grad(), policy.on_device(Stage.TEXT, [encoder], working_bytes) as device:
        source = TextEncoder(encoder, tokenizer, device, check=monitor.check)
        if not texts["negative_prompt"].is_empty:  # the prior's pipeline encodes both in one batch
            source.encode_together([texts["prompt"].text, texts["negative_prompt"].text])
        layer = LayerEncoder(source, lambda output: output.last_hidden_state)
        for title, text in texts.items():
            monitor.check()
            hidden, mask, parts = _averaged_parts(layer, text)
            rows[title] = PriorTextEmbeds(
                pooled=checked_output(layer.pooled(text), title, encoder.dtype, policy, components),
                hidden=checked_output(hidden, title, encoder.dtype, policy, components),
                mask=mask.to(policy.output_device()),
                parts=parts,
            )
    return rows


def _averaged_parts(layer: LayerEncoder, text: Prompt) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Hidden states [1, 77, width], mask [1, 77] bool, and the number of parts that were averaged."""
    import torch

    hidden, masks = layer.hidden(text), layer.token_masks(text)  # [1, n * 77, width], [n, 77]
    parts, length = masks.shape
    if parts == 1:
        return hidden, masks, 1
    states = hidden.reshape(parts, length, -1)
    mask = masks.any(dim=0, keepdim=True)
    shares = masks.float()
    shares[0, ~mask[0]] = 1.0  # positions after the longest part get the first part's padding
    shares = shares / shares.sum(dim=0)
    return torch.einsum("pt,ptw->tw", shares, states)[None], mask, parts
