"""Components and a prompt -> the embeddings that the family's pipelines take, through Compel.

Within 77 tokens and at weight 1 the result is, bit for bit, what the diffusers pipeline's own ``encode_prompt`` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..pipelines.adapters.lora import active_loras
from ..pipelines.adapters.textual_inversion import active_embeddings, token_expansions
from ..pipelines.base.errors import RelayError
from ..pipelines.base.monitor import Monitor
from ..pipelines.device.offload import OffloadPolicy, Stage
from ..pipelines.device.out_of_memory import tried_once_more
from ..pipelines.device.runtime import Runtime
from ..pipelines.device.working_memory import text_bytes
from ..pipelines.model.broken_weights import broken_weights
from ..pipelines.model.components import PipelineComponents
from ..pipelines.model.embeds import PriorText, PriorTextEmbeds, PromptEmbeds, TextEmbeds, mark_of
from ..pipelines.model.family import Task
from ..pipelines.model.laws import TextLayer
from .encoded_texts import find_texts, keep_texts, wanted_texts
from .foreign import notes_on
from .prompt_text import Prompt
from .syntax import parse

if TYPE_CHECKING:
    import torch

    from .text_encoder import LayerEncoder, ReadLayer


CLIP_L_ACTIVATION = "quick_gelu"
"""Of Stable Diffusion 1.x's text encoder; 2.x has "gelu"."""


@tried_once_more
def encode_prompt(
    components: PipelineComponents,
    prompt: str,
    negative_prompt: str,
    runtime: Runtime,
    *,
    syntax: str,
    clip_skip: int = 0,
) -> PromptEmbeds:
    """Encodes a prompt and its negative for a family that reads text.

    An empty negative prompt is a script's ``negative_prompt=None`` in every syntax: the encoding of ``""``, or zeros
    where the model's ``force_zeros_for_empty_prompt`` asks for them. An empty prompt is the encoding of ``""``.

    A script cuts a text at 77 tokens; this does not, in any syntax: a longer text is encoded 77 tokens at a time,
    split between sentences where it can be, and the shorter of the two is filled up with empty texts. The pooled
    embedding is that of the literal text, with the syntax taken off and cut at 77 tokens, as in a script.

    Args:
        components: a model with text encoders.
        syntax: a key of :data:`~.syntax.SYNTAXES`.
        clip_skip: diffusers' ``clip_skip``: how many of the encoders' last layers to leave out, of the prompt only.

    Returns:
        Hidden states [1, n * 77, width] in the encoder's dtype on ``runtime.policy.output_device()``, pooled [1, width] where
        the family has them.

    Raises:
        RelayError: the family reads no text, ``clip_skip`` is out of range, the syntax is unknown or broken, or
            weights carry the embeddings out of the dtype's range.
    """
    import torch

    from .encoder_runs import TextEncoder
    from .text_encoder import LayerEncoder

    family, policy, monitor = components.family, runtime.policy, runtime.monitor
    if family.takes_image_embeds or Task.PRIOR in family.pipeline_classes:
        raise RelayError(
            f"Encode Prompt: {components.source} is a {family.title}, which is not prompted with text embeddings. "
            "Use the Kandinsky Prior node with the prior model, and give its prompt to the decoder."
        )
    words = [embedding.token for embedding in components.embeddings]
    positive, negative = (parse(text, syntax, words=words) for text in (prompt, negative_prompt))
    _say_notes({"prompt": prompt, "negative_prompt": negative_prompt}, syntax, monitor)
    pairs = [(components[name], components[name.replace("text_encoder", "tokenizer")]) for name in family.text_encoders]
    _check_clip_skip(clip_skip, components, min(encoder.config.num_hidden_layers for encoder, _ in pairs))
    zeros = negative.is_empty and bool(components.config.get("force_zeros_for_empty_prompt"))  # a flag of SDXL's alone
    wanted = wanted_texts(components, (positive, negative), clip_skip, zeros)
    found = find_texts(wanted, policy.output_device())
    if found is not None:
        return PromptEmbeds(**found, mark=mark_of(components))

    positives: list[torch.Tensor] = []
    negatives: list[torch.Tensor] = []
    pooled: list[torch.Tensor] = []
    host_pooled: list[torch.Tensor] = []
    encoders = [encoder for encoder, _ in pairs]
    on_device = policy.on_device(Stage.TEXT, encoders, text_bytes(encoders, [prompt, negative_prompt]))
    with (
        torch.no_grad(),
        on_device as device,
        active_loras(components, family.text_encoders),
        active_embeddings(components),
    ):
        for encoder, tokenizer in pairs:
            monitor.check()
            source = TextEncoder(encoder, tokenizer, device, token_expansions(components, tokenizer), monitor.check)
            layer = LayerEncoder(source, _layer(components, encoder, 0))
            skipping = LayerEncoder(source, _layer(components, encoder, clip_skip)) if clip_skip else layer
            hidden = skipping.hidden(positive)
            negative_hidden = torch.zeros_like(hidden) if zeros else layer.hidden(negative)
            tokens = max(hidden.shape[1], negative_hidden.shape[1])
            positives.append(skipping.padded(hidden, tokens))
            negatives.append(layer.padded(negative_hidden, tokens))
        if family.has_pooled_embeds:  # of the last encoder
            pooled = [layer.pooled(positive)]
            pooled.append(torch.zeros_like(pooled[0]) if zeros else layer.pooled(negative))
        elif family.serves_host_samplers and encoder.config.hidden_act == CLIP_L_ACTIVATION:
            host_pooled = [layer.host_pooled(positive), layer.host_pooled(negative)]
        dtype = encoder.dtype
        nothing = parse("", syntax)
        empty = [layer.hidden(nothing), layer.pooled(nothing)] if family.drops_prompt_at_guidance_0 else []

    def finished(name: str, states: list[torch.Tensor], **pooled: torch.Tensor | None) -> TextEmbeds:
        return TextEmbeds(
            hidden=_handed_over(torch.cat(states, dim=-1), name, dtype, policy, components),
            **{
                kind: None if state is None else _handed_over(state, name, dtype, policy, components)
                for kind, state in pooled.items()
            },
        )

    nones = [None, None]
    embeds = {
        name: finished(title, states, pooled=own, host_pooled=host)
        for name, title, states, own, host in zip(
            ("positive", "negative"),
            ("prompt", "negative_prompt"),
            (positives, negatives),
            pooled or nones,
            host_pooled or nones,
        )
    }
    if empty:
        embeds["empty"] = finished("prompt", empty[:1], pooled=empty[1])
    keep_texts(wanted, embeds)
    return PromptEmbeds(**embeds, mark=mark_of(components))


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
            f"Kandinsky Prior: {components.source} is a {components.family.title}, and not a prior. Load a Kandinsky 2.2 prior."
        )
    policy, monitor = runtime.policy, runtime.monitor
    _say_notes({"prompt": prompt, "negative_prompt": negative_prompt}, syntax, monitor)
    texts = {"prompt": parse(prompt, syntax), "negative_prompt": parse(negative_prompt, syntax), "": parse("", syntax)}
    wanted = wanted_texts(components, tuple(texts.values()))
    rows: dict[str, PriorTextEmbeds] | None = find_texts(wanted, policy.output_device())
    if rows is None:
        rows = _encode_rows(components, texts, runtime)
        keep_texts(wanted, rows)
    for title, row in rows.items():
        if row.parts > 1:
            monitor.say(
                f"{title}: the prior reads 77 tokens at once, and this is {row.parts} times as much. The {row.parts} parts were averaged, token by token."
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
    encoder, tokenizer = components[name], components[name.replace("text_encoder", "tokenizer")]
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
                pooled=_handed_over(layer.pooled(text), title, encoder.dtype, policy, components),
                hidden=_handed_over(hidden, title, encoder.dtype, policy, components),
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


def _say_notes(texts: Mapping[str, str], syntax: str, monitor: Monitor) -> None:
    for title, text in texts.items():
        for note in notes_on(text, syntax):
            monitor.say(f"{title}: {note}")


def _layer(components: PipelineComponents, encoder: Any, clip_skip: int) -> ReadLayer:
    """Where diffusers' pipelines of this family read the encoder.

    Source: ``encode_prompt`` of StableDiffusionPipeline, StableDiffusionXLPipeline and
    StableDiffusionLatentUpscalePipeline. The first one fails with transformers 5.6 and later when layers are skipped,
    which have the layer norm one level higher.
    """
    if components.family.text_layer is TextLayer.BARE:
        return lambda output: output.hidden_states[-1]
    if components.family.text_layer is TextLayer.PENULTIMATE:
        return lambda output: output.hidden_states[-(clip_skip + 2)]
    if clip_skip == 0:
        return lambda output: output.last_hidden_state
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    return lambda output: norm(output.hidden_states[-(clip_skip + 1)])


def _check_clip_skip(clip_skip: int, components: PipelineComponents, layers: int) -> None:
    most = {TextLayer.NORMALISED: layers, TextLayer.PENULTIMATE: layers - 1, TextLayer.BARE: 0}[
        components.family.text_layer
    ]
    if most == 0 and clip_skip != 0:
        raise RelayError(
            f"clip_skip: {components.source} ({components.family.title}) reads the last layer of its text encoder and no "
            f"other, so {clip_skip} can't be left out. Set clip_skip to 0."
        )
    if not 0 <= clip_skip <= most:
        raise RelayError(
            f"clip_skip: {clip_skip} layers cannot be skipped in {components.source}. Its text encoder has {layers} layers: 0 to {most} can be."
        )


def _handed_over(
    tensor: torch.Tensor, name: str, dtype: torch.dtype, policy: OffloadPolicy, components: PipelineComponents
) -> torch.Tensor:
    result = tensor.to(dtype)
    if not bool(result.isfinite().all()):
        if broken := broken_weights({encoder: components[encoder] for encoder in components.family.text_encoders}):
            raise RelayError(f"{name}: {components.source} made values of it that are not numbers. {broken}")
        raise RelayError(
            f"{name}: the embeddings are too large for {str(dtype).removeprefix('torch.')}. Use smaller weights: above 2 they seldom help."
        )
    return result.to(policy.output_device())
