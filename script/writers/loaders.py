"""Models, ControlNets, and the nodes that change a model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from ...pipelines.denoising.schedulers import SIGMA_FLAGS
from ...pipelines.model.laws import StepMemory
from ..inputs import Inputs
from ..literals import call, literal, number, variable
from ..script import Script
from ..values import Loaded, Model, Net, UsedLora

DTYPES = ("auto", "float32", "float16", "bfloat16")
VARIANTS = ("auto", "fp16", "none")
DEFAULT = "default"
TAKE_CLIP_SAMPLE = ("DDIMScheduler", "DDPMScheduler", "LCMScheduler", "TCDScheduler")
"""Their defaults are meant for models of pixels."""


def load_model_from_hub(inputs: Inputs, script: Script) -> tuple[Model]:
    repo_id, revision = inputs.text("repo_id").strip(), inputs.text("revision", "").strip()
    variant = inputs.choice("variant", VARIANTS, "auto")
    more = [f"revision={literal(revision)}"] if revision else []
    more += ['variant="fp16"'] if variant == "fp16" else []
    if inputs.text("subfolder", "").strip():
        raise script.refuse(
            "subfolder: a pipeline loads only whole repositories, so this can't be written as a script."
        )
    return (_loaded(inputs, script, repo_id, literal(repo_id), more, of_hub=True),)


def load_model(inputs: Inputs, script: Script) -> tuple[Model]:
    name = inputs.text("model")
    name = re.sub(r" \((folder|file)\)$", "", name)
    if name.endswith(".safetensors"):
        raise script.refuse(
            f"{name!r} is a single file, which can't be written as a script yet. Use a folder or the hub."
        )
    return (_loaded(inputs, script, name, _path(script, "diffusers", name), [], of_hub=False),)


def _loaded(inputs: Inputs, script: Script, source: str, where: str, more: list[str], *, of_hub: bool) -> Model:
    dtype_name = inputs.choice("dtype", DTYPES, "auto")
    key = (source, dtype_name, *more)
    if key in script.loaded:
        script.line(f"# the same as {script.loaded[key].name}")
        return Model(script.loaded[key])
    facts = script.shelf.facts(source, of_hub=of_hub)
    if facts.family.memory is StepMemory.TRANSFORMER:  # their pipelines pack latents, and have texts of other kinds
        raise script.refuse(f"{source} is a {facts.family.title}, which can't be written as a script yet.")
    title = script.node.title
    if title == script.node.type or title.startswith("Load "):
        title = source.rsplit("/", 1)[-1]
    loaded = Loaded(
        key, script.page.name(title, "model"), source, facts.family, facts.is_inpainting, script.dtype(dtype_name)
    )
    script.loaded[key] = loaded
    arguments = [where, *more, f"torch_dtype={loaded.dtype}", "use_safetensors=True"]
    if facts.family.serves_host_samplers and facts.family.takes_embeddings and not facts.family.has_pooled_embeds:
        arguments += ["safety_checker=None", "requires_safety_checker=False"]
    if facts.family.reads_sizes:
        arguments.append("add_watermarker=False")
    model = Model(loaded)
    script.load(model, "from_pretrained", arguments)
    return model


def load_controlnet_from_hub(inputs: Inputs, script: Script) -> tuple[Net]:
    repo_id, revision = inputs.text("repo_id").strip(), inputs.text("revision", "").strip()
    variant = inputs.choice("variant", VARIANTS, "auto")
    more = [f"revision={literal(revision)}"] if revision else []
    more += ['variant="fp16"'] if variant == "fp16" else []
    subfolder = inputs.text("subfolder", "").strip()
    more += [f"subfolder={literal(subfolder)}"] if subfolder else []
    return (_net(inputs, script, literal(repo_id), more),)


def load_controlnet(inputs: Inputs, script: Script) -> tuple[Net]:
    name = re.sub(r" \((folder|file)\)$", "", inputs.text("controlnet"))
    if name.endswith(".safetensors"):
        raise script.refuse(
            f"{name!r} is a single file, which can't be written as a script yet. Use a folder or the hub."
        )
    return (_net(inputs, script, _path(script, "controlnet", name), []),)


def _net(inputs: Inputs, script: Script, where: str, more: list[str]) -> Net:
    name = script.new("controlnet")
    dtype = script.dtype(inputs.choice("dtype", DTYPES, "auto"))
    cls = script.page.use("diffusers", "ControlNetModel")
    arguments = [where, *more, f"torch_dtype={dtype}", "use_safetensors=True"]
    script.assign(name, f"{cls}.from_pretrained", arguments, ".to(DEVICE)")
    return Net(name)


def load_lora(inputs: Inputs, script: Script) -> tuple[Model]:
    model, file = inputs.value("model", Model), inputs.text("lora")
    strength, text_strength = inputs.number("strength", 1.0), inputs.number("text_strength", 1.0)
    adapter = variable(PurePosixPath(file).stem, "lora")
    known = script.plan.adapters.setdefault(model.loaded.key, [])
    if adapter not in known:
        known.append(adapter)
        folder, name = PurePosixPath(file).parent, PurePosixPath(file).name
        where = _path(script, "loras", "" if str(folder) == "." else str(folder))
        arguments = [where, f"weight_name={literal(name)}", f"adapter_name={literal(adapter)}"]
        pipeline = script.plain_pipeline(model)
        script.line(call(f"{pipeline}.load_lora_weights", arguments))
    else:
        script.line(f"# the same file as before, at {number(strength)}")
    return (replace(model, loras=(*model.loras, UsedLora(file, adapter, strength, text_strength))),)


def load_textual_inversion(inputs: Inputs, script: Script) -> tuple[Model]:
    model, file, token = inputs.value("model", Model), inputs.text("embedding"), inputs.text("token", "").strip()
    if model.family.has_pooled_embeds:
        raise script.refuse("an embedding for SDXL can't be written as a script yet.")
    pipeline = script.plain_pipeline(model)
    arguments = [_path(script, "embeddings", file), *([f"token={literal(token)}"] if token else [])]
    if (model.loaded.key, file, token) not in script.plan.with_embeddings:
        script.plan.with_embeddings.add((model.loaded.key, file, token))
        script.line(call(f"{pipeline}.load_textual_inversion", arguments))
    else:
        script.line("# loaded before")
    return (replace(model, has_embeddings=True),)


def set_scheduler(inputs: Inputs, script: Script) -> tuple[Model]:
    model = inputs.value("model", Model)
    name, sigmas = inputs.text("scheduler", DEFAULT), inputs.choice("sigmas", (DEFAULT, *SIGMA_FLAGS), DEFAULT)
    if name != DEFAULT and name not in model.family.schedulers:
        raise script.refuse(f"{model.family.title} can't run {name!r}.")
    if inputs.number("shift", 0.0):
        raise script.refuse("shift can't be written as a script yet.")
    options: dict[str, Any] = {}
    if name in TAKE_CLIP_SAMPLE:
        options["clip_sample"] = False
    if sigmas != DEFAULT:
        options[SIGMA_FLAGS[sigmas]] = True
    for key in ("timestep_spacing", "prediction_type", "algorithm_type"):
        value = inputs.text(key, DEFAULT)
        if value != DEFAULT:
            options[key] = value
    for key in ("rescale_betas_zero_snr", "euler_at_final"):
        if inputs.flag(key, False):
            options[key] = True
    if name == DEFAULT and not options:
        script.line("# the model's own")
        return (replace(model, scheduler=None),)
    named = name if name != DEFAULT else ""
    script.line(f"# {named or 'its own class'}{': ' if options else ''}{', '.join(options)}")
    return (replace(model, scheduler=(named, tuple(options.items()))),)


def set_guidance(inputs: Inputs, script: Script) -> tuple[Model]:
    model = inputs.value("model", Model)
    rescale, scale = inputs.number("guidance_rescale", 0.0), inputs.number("pag_scale", 0.0)
    layers = tuple(part.strip() for part in inputs.text("pag_layers", "mid").split(",") if part.strip())
    guidance: dict[str, Any] = {}
    if rescale:
        guidance["guidance_rescale"] = rescale
    if scale:
        guidance["pag_scale"] = scale
    script.line(f"# {', '.join(f'{name} {number(value)}' for name, value in guidance.items()) or 'as usual'}")
    return (replace(model, guidance=guidance, pag_layers=layers if scale else ()),)


def set_vae(inputs: Inputs, script: Script) -> tuple[Model]:
    model, other = inputs.value("model", Model), inputs.optional("vae_from", Model)
    if inputs.text("vae_file", "none") != "none" or other is None:
        raise script.refuse("a VAE from a file can't be written as a script yet. Take it from a model.")
    script.line(f"# the autoencoder of {other.loaded.name}")
    return (replace(model, vae=other.vae or other),)


def optimize(inputs: Inputs, script: Script) -> tuple[Model]:
    model = inputs.value("model", Model)
    inputs.ignore("compile", "attention", "channels_last", "matmul", "vae_slicing")
    tiled = inputs.flag("vae_tiling", False)
    script.line("# what only changes speed and memory is left out")
    return (replace(model, tiled=tiled),)


def _path(script: Script, kind: str, name: str) -> str:
    script.page.use("pathlib", "Path")
    script.page.constant("MODELS", 'Path("models")')
    path = f"MODELS / {literal(kind)}"
    return f"{path} / {literal(name)}" if name else path
