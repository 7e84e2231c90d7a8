"""The nodes that paint: from text, from a picture or latent, and under a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...pipelines.model.family import Task
from ..errors import NoScript
from ..inputs import Inputs
from ..literals import call, literal, number
from ..script import Script
from ..values import Hint, Latent, Mask, Model, Picture, Prompt, Size, Unit

FACTOR = 8
"""Pixels of a latent pixel, in all families that a script can be written for."""


def text_to_image(inputs: Inputs, script: Script) -> tuple[Latent]:
    model, prompt = inputs.value("model", Model), inputs.value("prompt", Prompt)
    width, height = inputs.whole("width"), inputs.whole("height")
    batch, seed = inputs.whole("batch_size", 1), inputs.whole("seed")
    end = _end(inputs, script, model)
    control = _control(inputs, script)
    run = _Run(script, model, prompt, control, batch, (str(width), str(height)), (width, height))
    script.set_adapters(model, run.pipeline(Task.TEXT_TO_IMAGE))
    arguments = [
        *run.prompt_arguments(),
        *run.control_arguments(Task.TEXT_TO_IMAGE),
        f"width={width}",
        f"height={height}",
        *_settings(inputs, model),
        *([] if end is None else [f"denoising_end={number(end)}"]),
        f"generator={script.generators(seed, batch)}",
    ]
    latent = Latent(script.new("latents"), model, batch, (width, height), noise_left=end)
    run.write(latent.name, Task.TEXT_TO_IMAGE, arguments)
    return (latent,)


def image_to_image(inputs: Inputs, script: Script) -> tuple[Latent]:
    model, prompt = inputs.value("model", Model), inputs.value("prompt", Prompt)
    seed, strength = inputs.whole("seed"), inputs.number("strength")
    start, end = _start(inputs, script, model), _end(inputs, script, model)
    scores = [inputs.number("aesthetic_score", 6.0), inputs.number("negative_aesthetic_score", 2.5)]
    control = _control(inputs, script)
    begin = _Beginning(inputs, script, model)
    run = _Run(script, model, prompt, control, begin.batch, begin.sides, begin.size)
    script.set_adapters(model, run.pipeline(Task.IMAGE_TO_IMAGE))
    if start is not None and begin.mask is not None:
        raise script.refuse("a latent with a mask can't be continued at a denoising_start.")
    arguments = [
        *run.prompt_arguments(),
        *begin.arguments(run.pipeline(Task.IMAGE_TO_IMAGE)),
        *run.control_arguments(Task.IMAGE_TO_IMAGE),
        f"strength={number(strength)}" if start is None else f"denoising_start={number(start)}",
        *([] if end is None else [f"denoising_end={number(end)}"]),
        *_settings(inputs, model),
    ]
    if "requires_aesthetics_score" in model.family.config_flags:
        arguments += [
            f"{name}={number(score)}"
            for name, score in zip(("aesthetic_score", "negative_aesthetic_score"), scores)
            if score != {"aesthetic_score": 6.0, "negative_aesthetic_score": 2.5}[name]
        ]
    generators = script.generators(seed, begin.batch, begin.indices)
    arguments.append(f"generator={generators}")
    if begin.mask is not None:
        as_list = generators if generators.startswith("seeded(") else f"[{generators}]"
        if "movq" in (model.family.autoencoder or "") and run.needs_stand_in:
            raise script.refuse("a masked latent with a hint can't be written as a script yet.")
        keep = script.page.name("keep")
        script.assign(keep, script.page.part("keep_unmasked"), [begin.latents, begin.mask.name, as_list])
        arguments.append(f"callback_on_step_end={keep}")
    latent = Latent(script.new("latents"), model, begin.batch, begin.size, end, begin.mask, begin.indices)
    run.write(latent.name, Task.IMAGE_TO_IMAGE, arguments, begin.latents)
    return (latent,)


def inpaint(inputs: Inputs, script: Script) -> tuple[Latent]:
    model, prompt = inputs.value("model", Model), inputs.value("prompt", Prompt)
    mask, strength, seed = inputs.value("mask", Mask), inputs.number("strength"), inputs.whole("seed")
    control = _control(inputs, script)
    if inputs.whole("padding_mask_crop", 0) or inputs.flag("soft_mask", False):
        raise script.refuse("padding_mask_crop and soft_mask can't be written as a script yet.")
    if not inputs.has("image"):
        raise script.refuse("inpainting of a latent can't be written as a script yet. Decode it, and connect image.")
    if model.family.takes_image_embeds:
        raise script.refuse("inpainting with Kandinsky can't be written as a script yet.")
    begin = _Beginning(inputs, script, model)
    assert begin.picture is not None
    width, height = begin.sides
    repaint = script.page.name("repaint")
    script.assign(repaint, script.page.part("to_repaint"), [mask.name, width, height])
    run = _Run(script, model, prompt, control, begin.batch, begin.sides, begin.size)
    task = Task.INPAINT
    if task not in model.family.pipeline_classes:
        raise script.refuse(f"inpainting with {model.family.title} can't be written as a script yet.")
    script.set_adapters(model, run.pipeline(task))
    generators = script.generators(seed, begin.batch)
    name = script.new("latents")
    run.write(
        name,
        task,
        [
            *run.prompt_arguments(),
            f"image={begin.picture.name}",
            f"mask_image={repaint}",
            *run.control_arguments(task),
            f"width={width}",
            f"height={height}",
            f"strength={number(strength)}",
            *_settings(inputs, model),
            f"generator={generators}",
        ],
    )
    if model.loaded.is_inpainting:
        kept = script.page.name("kept")
        as_list = generators if generators.startswith("seeded(") else f"[{generators}]"
        script.line("# what is not masked stays as it was: the pipeline itself changes it a little")
        script.assign(kept, script.page.part("encode"), [script.plain_pipeline(model), begin.picture.name, as_list])
        script.assign(name, script.page.part("only_under_mask"), [name, kept, repaint])
    return (Latent(name, model, begin.batch, begin.size),)


class _Beginning:
    """The picture or latent that a run starts from."""

    def __init__(self, inputs: Inputs, script: Script, model: Model) -> None:
        picture, latent = inputs.optional("image", Picture), inputs.optional("latent", Latent)
        if (picture is None) == (latent is None):
            raise script.refuse("connect exactly one of image and latent.")
        self._script, self._model = script, model
        self.mask = latent.mask if latent is not None else None
        self.indices = latent.indices if latent is not None else None
        self.latents = ""
        """The variable of the latents, if it starts from some."""
        self.picture: Picture | None = None
        if latent is not None and script.reads(model, latent):
            self.latents, self.batch, self.size = latent.name, latent.batch, latent.size
            self.sides = _sides(latent.size, latent.name, FACTOR)
            return
        if latent is not None:
            assert latent.model is not None
            if latent.noise_left is not None or self.mask is not None:
                raise script.refuse("its latent is of another kind of model, and has a mask or still holds noise.")
            script.line(f"# {model.loaded.title} can't read these latents: they go through a picture")
            picture = script.decoded(latent, latent.model)
        assert picture is not None
        self.picture = script.fitted(picture, FACTOR)
        self.batch, self.size = self.picture.batch, self.picture.size
        self.sides = _sides(self.size, self.picture.name, 1)
        if model.family.takes_image_embeds:
            name = script.page.name(f"{self.picture.name}_latents")
            encode = script.page.part("encode_movq")
            script.assign(name, encode, [script.plain_pipeline(model), self.picture.name])
            self.latents = name

    def arguments(self, pipeline: str) -> list[str]:
        if self._model.family.takes_image_embeds:
            # the stand-in for the encoder gives the latents; only the number of pictures matters
            return [f"image=torch.zeros({self.batch}, 3, 8, 8)", "width=8", "height=8"]
        return [f"image={self.latents or (self.picture.name if self.picture else '')}"]


class _Run:
    """One call of a pipeline: the arguments that all tasks share."""

    def __init__(
        self,
        script: Script,
        model: Model,
        prompt: Prompt,
        control: Sequence[Unit | Hint],
        batch: int,
        sides: tuple[str, str],
        size: Size | None,
    ) -> None:
        self._script, self._model, self._prompt, self._batch = script, model, prompt, batch
        self._sides, self._size = sides, size
        self._units = [one for one in control if isinstance(one, Unit)]
        self._hints = [one for one in control if isinstance(one, Hint)]
        if bool(self._hints) != model.family.takes_hint or (self._hints and self._units):
            raise script.refuse(f"control is not what {model.family.title} needs.")

    @property
    def needs_stand_in(self) -> bool:
        return bool(self._hints)

    def pipeline(self, task: Task) -> str:
        return self._script.pipeline(self._model, task, [unit.net for unit in self._units])

    def prompt_arguments(self) -> list[str]:
        name, many = self._prompt.name, self._batch > 1
        if many and self._model.family.takes_image_embeds:
            name = f"{self._script.page.part('repeated')}({name}, {self._batch})"
        arguments = [f"**{name}"]
        if many and not self._model.family.takes_image_embeds:
            arguments.append(f"num_images_per_prompt={self._batch}")
        width, height = self._sides
        for key, value in self._prompt.sizes:
            is_own = value == (0, 0) and "crop" not in key
            arguments.append(f"{key}=({height}, {width})" if is_own else f"{key}={literal(value)}")
        return arguments

    def control_arguments(self, task: Task) -> list[str]:
        script, (width, height) = self._script, self._sides
        if self._hints:
            picture = script.stretched(self._hints[0].picture, width, height, self._size)
            repeat = f".repeat({self._batch}, 1, 1, 1)" if picture.batch != self._batch else ""
            return [f"hint={picture.name}{repeat}.to(DEVICE, {self._model.loaded.dtype})"]
        if not self._units:
            return []
        pictures = []
        for unit in self._units:
            if unit.picture.batch > 1:
                raise script.refuse("a batch of control pictures can't be written as a script yet.")
            pictures.append(script.stretched(unit.picture, width, height, self._size).name)
        one = len(self._units) == 1
        scales = [number(unit.scale) for unit in self._units]
        starts = [number(unit.start) for unit in self._units]
        ends = [number(unit.end) for unit in self._units]
        arguments = [
            f"{'image' if task is Task.TEXT_TO_IMAGE else 'control_image'}={pictures[0] if one else _list(pictures)}",
            f"controlnet_conditioning_scale={_float(scales[0]) if one else _list(map(_float, scales))}",
            f"control_guidance_start={_float(starts[0]) if one else _list(map(_float, starts))}",
            f"control_guidance_end={_float(ends[0]) if one else _list(map(_float, ends))}",
        ]
        return arguments + (["guess_mode=True"] if self._units[0].guess_mode else [])

    def write(self, name: str, task: Task, arguments: list[str], latents: str = "") -> None:
        script, pipeline = self._script, self.pipeline(task)
        arguments = [*arguments, *(f"{key}={number(value)}" for key, value in self._model.guidance.items())]
        if self._hints:
            movq = script.page.name("movq")
            script.assign(movq, script.page.part("Latents"), [f"{pipeline}.movq", *([latents] if latents else [])])
            painter = script.page.name(f"{pipeline}_painter")
            script.assign(painter, script.page.part("with_movq"), [pipeline, movq])
            script.line(call(painter, [*arguments, 'output_type="pt"']))
            script.line(f"{name} = {movq}.latents")
            return
        if latents and self._model.family.takes_image_embeds:
            painter = script.page.name(f"{pipeline}_painter")
            script.assign(painter, script.page.part("beginning_with"), [pipeline, latents])
            pipeline = painter
        script.assign(name, pipeline, [*arguments, 'output_type="latent"'], ".images")


def _settings(inputs: Inputs, model: Model) -> list[str]:
    steps, scale = inputs.whole("steps"), inputs.number("guidance_scale")
    eta = inputs.number("eta", 0.0)
    if inputs.number("true_cfg_scale", 1.0) != 1.0:
        raise NoScript(f"{inputs.node.called}: true_cfg_scale can't be written as a script yet.")
    arguments = [f"num_inference_steps={steps}", f"guidance_scale={number(scale)}"]
    return arguments + ([f"eta={number(eta)}"] if eta else [])


def _end(inputs: Inputs, script: Script, model: Model) -> float | None:
    end = inputs.number("denoising_end", 1.0)
    if end == 1.0:
        return None
    if not model.family.has_denoising_range:
        raise script.refuse(f"{model.family.title} always runs to the end: set denoising_end to 1.")
    return end


def _start(inputs: Inputs, script: Script, model: Model) -> float | None:
    asked = inputs.number("denoising_start", 0.0)
    latent = inputs.optional("latent", Latent)
    start = asked or (latent.noise_left if latent is not None else None)
    if start is not None and not model.family.has_denoising_range:
        raise script.refuse(f"{model.family.title} can't go on from denoising_start {start:g}.")
    return start


def _control(inputs: Inputs, script: Script) -> tuple[Any, ...]:
    if inputs.has("ip_adapter"):
        raise script.refuse("ip_adapter can't be written as a script yet.")
    inputs.ignore("ip_adapter")
    return inputs.optional("control", tuple) or ()


def _sides(size: Size | None, name: str, factor: int) -> tuple[str, str]:
    """Expressions for width and height in pixels."""
    if size is not None:
        return str(size[0]), str(size[1])
    times = f"{factor} * " if factor > 1 else ""
    return f"{times}{name}.shape[-1]", f"{times}{name}.shape[-2]"


def _list(entries: Any) -> str:
    return f"[{', '.join(entries)}]"


def _float(text: str) -> str:
    """The ControlNet pipelines tell a number from a list by its being a float."""
    return text if "." in text or "e" in text else f"{text}.0"
