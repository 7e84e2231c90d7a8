"""Prompts: texts, Kandinsky's prior, and what is made of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from ...pipelines.model.family import Task
from ...pipelines.model.laws import Guidance, TextLayer, TextRecipe
from ...weighting.compel_syntax import refuse_unbalanced
from ...weighting.foreign import refuse_in_compel
from ...weighting.prompt_text import Blend
from ...weighting.prompt_text import Prompt as ReadPrompt
from ...weighting.shortened import with_quotation_marks
from ...weighting.syntax import parse
from ..inputs import Inputs
from ..literals import call, literal, number
from ..script import Script
from ..values import Model, Native, Picture, Prompt

SYNTAXES = ("compel", "a1111", "plain")
SIGNS = re.compile(r"""[()"\\+=\[\]{}|]|-(?![^\W_])|(?<!\w)-|\.(?:and|add|blend|attend|swap)\b""")
"""What may be Compel's syntax."""
SURELY_SHORT = 75
"""Letters of a text that has at most as many tokens as a pipeline reads."""
READS = ("RelayTextToImage", "RelayImageToImage", "RelayInpaint", "RelayLatentUpscale", "RelaySuperResolution")


def encode_prompt(inputs: Inputs, script: Script) -> tuple[Any, ...]:
    model, syntax = inputs.value("model", Model), inputs.choice("syntax", SYNTAXES, "compel")
    texts = (inputs.text("prompt"), inputs.text("negative_prompt", ""))
    skip = inputs.whole("clip_skip", 0)
    family = model.family
    if not family.text_encoders or family.text is TextRecipe.NONE:
        raise script.refuse(f"{model.loaded.title} is a {family.title}, which reads no text here.")
    natives = (Native("CONDITIONING"), Native("CONDITIONING"))
    name = script.new("prompt")
    plain = [_plain(text, syntax, script) for text in texts]
    has_own_embeds = model.has_embeddings or model.loaded.key in script.before.adapters
    only_read = all(node.type in READS for node, _ in script.readers())
    if all(plain) and not has_own_embeds and only_read and (skip == 0 or family.text_layer is TextLayer.PENULTIMATE):
        entries = {"prompt": texts[0].strip()}
        if texts[1].strip() and family.guidance is not Guidance.EMBEDDED:
            entries["negative_prompt"] = texts[1].strip()
        pairs = [f"{literal(key)}: {literal(value)}" for key, value in entries.items()]
        if skip:
            pairs.append(f'"clip_skip": {skip}')
        script.line(_dict(name, pairs))
        return (Prompt(name, True), *natives)
    written = [_as_weighted(text, syntax, script) for text in texts]
    reads_embeds = family.text_layer is not TextLayer.BARE and family.guidance is not Guidance.EMBEDDED
    if family.text is not TextRecipe.CLIP or not reads_embeds:
        raise script.refuse(
            f"weights, texts of more than {SURELY_SHORT} letters and mixed prompts can't be written for {family.title} yet."
        )
    pipeline = script.plain_pipeline(model)
    script.set_adapters(model, pipeline)
    function = "encode_prompt_sdxl" if family.has_pooled_embeds else "encode_prompt"
    arguments = [pipeline, *(f"{key}={text}" for key, text in zip(("prompt", "negative_prompt"), written))]
    if not texts[1].strip():
        arguments.pop()
    if model.has_embeddings:
        arguments.append("own_words=True")
    if skip:
        if family.has_pooled_embeds:
            raise script.refuse("clip_skip with weights can't be written for SDXL yet.")
        function = "encode_prompt_skipping"
        arguments.append(f"skip={skip}")
    script.assign(name, script.page.part(function), arguments)
    return (Prompt(name, False), *natives)


def _dict(name: str, pairs: list[str]) -> str:
    line = f"{name} = {{{', '.join(pairs)}}}"
    if len(line) <= 88:
        return line
    return f"{name} = {{\n" + "".join(f"    {pair},\n" for pair in pairs) + "}"


def _plain(text: str, syntax: str, script: Script) -> bool:
    """Whether the pipeline's own encoding reads the text as the node does."""
    if syntax == "compel" and SIGNS.search(text):
        return False
    if syntax == "a1111":
        read = parse(text, "a1111")
        if len(read.parts) > 1 or "".join(read.text.split()) != "".join(text.split()):
            return False
    return len("".join(text.split()).encode()) <= SURELY_SHORT


def _as_weighted(text: str, syntax: str, script: Script) -> str:
    """The text as an argument of the script's ``encode_prompt``."""
    if not text.strip():
        return '""'
    if syntax == "compel":
        refuse_unbalanced(text)
        refuse_in_compel(text, ())
        # Compel reads a comma before a word as part of it, and drops quotation marks
        line = re.sub(r",(?=[^\W_]|[(\"])", ", ", re.sub(r"\s+", " ", text).strip())
        return literal(with_quotation_marks(line))
    read: ReadPrompt = parse(text, syntax)
    blocks = []
    for part in read.parts:
        assert not isinstance(part, Blend)
        blocks.append("[" + ", ".join(f"({literal(one.text)}, {number(one.weight)})" for one in part.fragments) + "]")
    return f"[{', '.join(blocks)}]"


def kandinsky_prior(inputs: Inputs, script: Script) -> tuple[Prompt]:
    prior, image = inputs.value("prior", Model), inputs.optional("image", Picture)
    texts = (inputs.text("prompt"), inputs.text("negative_prompt", ""))
    syntax = inputs.choice("syntax", SYNTAXES, "compel")
    steps, scale = inputs.whole("steps"), inputs.number("guidance_scale")
    seed, strength = inputs.whole("seed"), inputs.number("strength", 1.0)
    pipeline = script.pipeline(prior, Task.PRIOR)
    name = script.new("prompt")
    more: list[str] = []
    prompts = [literal(text.strip()) for text in texts]
    plain = [_plain(text, syntax, script) for text in texts]
    if image is not None:
        other = script.page.name(f"{pipeline}_emb2emb")
        cls = script.page.use("diffusers", "KandinskyV22PriorEmb2EmbPipeline")
        script.line(f"{other} = {cls}(**{pipeline}.components)")
        pipeline = other
        more = [f"image={script.page.part('to_pil')}({image.name})", f"strength={number(strength)}"]
    if not all(plain):
        weighted = [_as_weighted(text, syntax, script) for text in texts]
        given = [text for text, is_plain in zip(weighted, plain) if not is_plain]
        read = script.page.name(f"{pipeline}_with_weights")
        script.assign(read, script.page.part("with_weights"), [pipeline, *given])
        pipeline = read
        prompts = [
            before if is_plain else f"{script.page.part('literal')}({text})"
            for before, is_plain, text in zip(prompts, plain, weighted)
        ]
    arguments = [prompts[0], *more]
    if texts[1].strip():
        arguments.append(f"negative_prompt={prompts[1]}")
    arguments += [
        f"num_inference_steps={steps}",
        f"guidance_scale={number(scale)}",
        f"generator={script.generators(seed, 1)}",
    ]
    script.line(f"positive, negative = {call(pipeline, arguments, 60)}.to_tuple()")
    script.line(f'{name} = {{"image_embeds": positive, "negative_image_embeds": negative}}')
    return (Prompt(name, False),)


def image_prompt(inputs: Inputs, script: Script) -> tuple[Prompt]:
    prior, image = inputs.value("prior", Model), inputs.value("image", Picture)
    pipeline = script.pipeline(prior, Task.PRIOR)
    name = script.new("prompt")
    part = script.page.part("embed_picture")
    script.assign(name, part, [pipeline, image.name])
    return (Prompt(name, False),)


def mix_prompts(inputs: Inputs, script: Script) -> tuple[Prompt]:
    one, other = inputs.value("prompt_a", Prompt), inputs.value("prompt_b", Prompt)
    weight = inputs.number("weight_b", 0.5)
    if one.sizes != other.sizes:
        raise script.refuse("the prompts have different sizes from SDXL Size.")
    name = script.new("prompt")
    script.assign(name, script.page.part("mixed"), [one.name, other.name, number(weight)])
    return (replace(one, name=name),)


def sdxl_size(inputs: Inputs, script: Script) -> tuple[Prompt]:
    prompt = inputs.value("prompt", Prompt)
    sizes: dict[str, Any] = {}
    for prefix in ("", "negative_"):
        default: Any = ... if not prefix else 0
        read = {
            key: inputs.whole(f"{prefix}{key}", default)
            for key in (
                *("original_width", "original_height", "crop_left", "crop_top"),
                *("target_width", "target_height"),
            )
        }
        if prefix and not any(read.values()):
            continue
        before = "negative_" if prefix else ""
        original = (read["original_height"], read["original_width"])
        target = (read["target_height"], read["target_width"])
        sizes[f"{before}original_size"] = original
        sizes[f"{before}crops_coords_top_left"] = (read["crop_top"], read["crop_left"])
        sizes[f"{before}target_size"] = target
    script.line("# the sizes go into the call")
    return (replace(prompt, sizes=tuple(sizes.items())),)
