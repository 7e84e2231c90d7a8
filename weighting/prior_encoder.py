"""A prompt for Kandinsky 2.2's prior, which reads one CLIP text encoder with a mask, 77 tokens and no more."""

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
from .encoded_texts import find_texts, keep_texts, wanted_texts
from .prompt_text import Prompt
from .syntax import parse
from .text_job import handed_over, say_notes, tokenizer_of

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
    """Encodes what Kandinsky 2.2's prior reads: a row each for the prompt, its negative, and the empty text.

    The prior has places for 77 tokens and no more. The parts of a longer text (or of ``.and()``) are therefore laid
    over each other: a place holds the mean of the parts that have a token there. A script cuts the text off instead;
    the mean is this pack's own way, which lets every word have a say. The user is told. The pooled embedding is that
    of the literal text, with the syntax taken off and cut at 77 tokens, as in a script.

    Args:
        components: a Kandinsky 2.2 prior.
        syntax: a key of :data:`~.syntax.SYNTAXES`.

    Returns:
        Rows in the encoder's dtype on ``runtime.policy.output_device()``. ``negative`` is None where the negative prompt is
        empty, which is a script's ``negative_prompt=None``.

    Raises:
        RelayError: ``components`` is no prior, the syntax is unknown or broken, or weights carry the embeddings out of
            the dtype's range.
    """
    if Task.PRIOR not in components.family.pipeline_classes:
        raise RelayError(
            f"Kandinsky Prior: {components.source} is a {components.family.title}, not a prior. Load a Kandinsky 2.2 prior."
        )
    policy, monitor = runtime.policy, runtime.monitor
    say_notes({"prompt": prompt, "negative_prompt": negative_prompt}, syntax, monitor)
    texts = {"prompt": parse(prompt, syntax), "negative_prompt": parse(negative_prompt, syntax), "": parse("", syntax)}
    wanted = wanted_texts(components, tuple(texts.values()))
    rows: dict[str, PriorTextEmbeds] | None = find_texts(wanted, policy.output_device())
    if rows is None:
        rows = _encode_rows(components, texts, runtime)
        keep_texts(wanted, rows)
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
        if not texts["negative_prompt"].is_empty:  # the prior's pipeline then encodes the two in one batch
            source.encode_together([texts["prompt"].text, texts["negative_prompt"].text])
        layer = LayerEncoder(source, lambda output: output.last_hidden_state)
        for title, text in texts.items():
            monitor.check()
            hidden, mask, parts = _laid_over(layer, text)
            rows[title] = PriorTextEmbeds(
                pooled=handed_over(layer.pooled(text), title, encoder.dtype, policy, components),
                hidden=handed_over(hidden, title, encoder.dtype, policy, components),
                mask=mask.to(policy.output_device()),
                parts=parts,
            )
    return rows


def _laid_over(layer: LayerEncoder, text: Prompt) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Hidden state [1, 77, width], mask [1, 77] bool, and how many times 77 tokens there were."""
    import torch

    hidden, masks = layer.hidden(text), layer.token_masks(text)  # [1, n * 77, width], [n, 77]
    parts, length = masks.shape
    if parts == 1:
        return hidden, masks, 1
    states = hidden.reshape(parts, length, -1)
    mask = masks.any(dim=0, keepdim=True)
    shares = masks.float()
    shares[0, ~mask[0]] = 1.0  # the padding behind the longest part is the first part's
    shares = shares / shares.sum(dim=0)
    return torch.einsum("pt,ptw->tw", shares, states)[None], mask, parts
