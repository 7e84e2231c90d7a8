"""What the writers of all nodes share: the page, the pipelines that the script has already, and what comes after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..pipelines.model.family import Task
from .errors import NoScript
from .graph import Link, Node
from .inputs import Inputs
from .known_models import Shelf
from .literals import call, indented, literal, number
from .page import WIDTH, Block, Page
from .values import Latent, Loaded, Model, Net, Picture, Size

AUTO_DTYPE = 'torch.float16 if DEVICE == "cuda" else torch.float32'
SEEDS = 2**64
OF_TASK = {
    Task.TEXT_TO_IMAGE: "text",
    Task.IMAGE_TO_IMAGE: "image",
    Task.INPAINT: "inpaint",
}


@dataclass(frozen=True)
class Use:
    """A pipeline that a script needs."""

    loaded: tuple[Any, ...]
    class_name: str
    scheduler: tuple[str, tuple[tuple[str, Any], ...]] | None
    nets: tuple[str, ...] = ()
    pag_layers: tuple[str, ...] = ()
    vae: str = ""


@dataclass
class Plan:
    """What a first writing found out, so that the second one can begin with it."""

    uses: list[Use] = field(default_factory=list)
    adapters: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)
    """Loaded weights -> the LoRAs that are loaded into them."""
    with_embeddings: set[tuple[Any, ...]] = field(default_factory=set)

    def of(self, loaded: Loaded) -> list[Use]:
        return [use for use in self.uses if use.loaded == loaded.key]


class Script:
    def __init__(self, page: Page, nodes: Mapping[str, Node], shelf: Shelf, plan: Plan) -> None:
        self.page, self.nodes, self.shelf = page, nodes, shelf
        self.before, self.plan = plan, Plan()
        self.outputs: dict[str, tuple[Any, ...]] = {}
        self.loaded: dict[tuple[Any, ...], Loaded] = {}
        self._pipelines: dict[Use, str] = {}
        self._first: dict[tuple[Any, ...], Use] = {}
        self._active: dict[tuple[Any, ...], str] = {}
        """Loaded weights -> the strengths of their LoRAs at this line."""
        self.block: Block = Block("")
        self.node: Node = Node("", "", "", {})
        self._readers: dict[Link, list[tuple[Node, str]]] = {}
        for node in nodes.values():
            for name, value in node.inputs.items():
                if isinstance(value, Link):
                    self._readers.setdefault(value, []).append((node, name))
        page.use("torch")
        page.constant("DEVICE", '"cuda" if torch.cuda.is_available() else "cpu"')

    # Lines

    def begin(self, node: Node, display_name: str) -> Inputs:
        self.node = node
        self.block = self.page.block(display_name if node.title == node.type else node.title)
        return Inputs(node, self.outputs)

    def line(self, text: str) -> None:
        self.block.lines += text.split("\n")

    def assign(self, name: str, function: str, arguments: Sequence[str], after: str = "") -> None:
        room = WIDTH - len(name) - 3 - len(after)
        text = call(function, arguments, room)
        if len(f"{name} = {function}(") > WIDTH and "\n" in text:
            text = f"(\n    {indented(text)}{after}\n)"
            after = ""
        self.line(f"{name} = {text}{after}")

    def new(self, otherwise: str = "value") -> str:
        """A variable named after the node."""
        return self.page.name(self.node.title, otherwise)

    def readers(self, output: int = 0) -> list[tuple[Node, str]]:
        """The inputs that an output of the current node goes to."""
        return self._readers.get(Link(self.node.id, output), [])

    def refuse(self, what: str) -> NoScript:
        return NoScript(f"{self.node.called}: {what}")

    # Seeds and sizes

    def generators(self, seed: int, count: int, indices: Sequence[int] | None = None) -> str:
        """An expression for one generator a picture."""
        seeds = [(seed + index) % SEEDS for index in (indices or range(count))]
        if len(seeds) == 1:
            return f'torch.Generator("cpu").manual_seed({seeds[0]})'
        if len(seeds) > 8 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
            return f"{self.page.part('seeded')}(*range({seeds[0]}, {seeds[-1] + 1}))"
        return f"{self.page.part('seeded')}({', '.join(map(str, seeds))})"

    def fitted(self, picture: Picture, multiple: int) -> Picture:
        """The picture in a size that the model can paint."""
        size = picture.size
        if size is not None and size[0] % multiple == 0 and size[1] % multiple == 0:
            return picture
        name = self.page.name(f"{picture.name}_fitted")
        arguments = [picture.name] + ([] if multiple == 8 else [str(multiple)])
        self.assign(name, self.page.part("fit"), arguments)
        floored = None if size is None else (size[0] // multiple * multiple, size[1] // multiple * multiple)
        return Picture(name, picture.batch, floored)

    def stretched(self, picture: Picture, width: str, height: str, size: Size | None) -> Picture:
        if size is not None and picture.size == size:
            return picture
        name = self.page.name(f"{picture.name}_fitted")
        self.assign(name, self.page.part("stretched"), [picture.name, width, height])
        return Picture(name, picture.batch, size)

    # Models

    def dtype(self, name: str) -> str:
        """An expression for the dtype of a loader. The first one that is asked for is DTYPE."""
        expression = AUTO_DTYPE if name == "auto" else f"torch.{name}"
        if self.page.constant_of("DTYPE") in (None, expression):
            self.page.constant("DTYPE", expression)
            return "DTYPE"
        return expression

    def pipeline(self, model: Model, task: Task, nets: Sequence[Net] = (), *, plain: bool = False) -> str:
        """The variable of a pipeline for a task; writes it if the script has none yet.

        Args:
            plain: without the model's scheduler and guidance, for encoding and decoding.
        """
        family, with_pag = model.family, bool(model.pag_layers) and not plain
        if with_pag:
            classes = family.pag_control_pipeline_classes if nets else family.pag_pipeline_classes
        else:
            classes = family.control_pipeline_classes if nets else family.pipeline_classes
        if task not in classes:
            what = f"{task.value}{' with ControlNets' if nets else ''}{' with PAG' if with_pag else ''}"
            raise self.refuse(f"{model.loaded.title} ({family.title}) can't do {what}.")
        use = Use(
            model.loaded.key,
            classes[task],
            model.scheduler,
            tuple(net.name for net in nets),
            model.pag_layers if with_pag else (),
            "" if model.vae is None else model.vae.loaded.name,
        )
        self.plan.uses.append(use)
        if use not in self._pipelines:
            self._pipelines[use] = self._made(model, use, task)
        return self._pipelines[use]

    def plain_pipeline(self, model: Model) -> str:
        """Any pipeline of the model, for its text encoders and autoencoder."""
        first = self._first.get(model.loaded.key)
        if first is not None and first.vae == ("" if model.vae is None else model.vae.loaded.name):
            return model.loaded.name
        uses = self.before.of(model.loaded)
        wanted = uses[0].class_name if uses else ""
        task = next((one for one, name in model.family.pipeline_classes.items() if name == wanted), None)
        return self.pipeline(model, task or next(iter(model.family.pipeline_classes)), plain=True)

    def _made(self, model: Model, use: Use, task: Task) -> str:
        first = self._first.get(model.loaded.key)
        if first is None:
            raise LookupError("the loader has written no pipeline")
        base = model.loaded.name
        name = base
        if use != first:
            words = {
                Task.TEXT_TO_IMAGE: "txt2img",
                Task.IMAGE_TO_IMAGE: "img2img",
                Task.INPAINT: "inpaint",
            }
            suffix = (
                f"{words.get(task, 'pipeline')}{'_with_control' if use.nets else ''}{'_pag' if use.pag_layers else ''}"
            )
            if use.class_name == first.class_name:
                suffix = "changed"
            name = self.page.name(f"{base}_{suffix}")
            arguments = [base]
            if use.nets:
                arguments.append(f"controlnet={use.nets[0] if len(use.nets) == 1 else f'[{chr(44).join(use.nets)}]'}")
            if use.vae:
                arguments.append(f"vae={use.vae}.vae")
            if use.pag_layers:
                arguments.append(f"pag_applied_layers={literal(list(use.pag_layers))}")
            arguments.append(f"torch_dtype={model.loaded.dtype}")
            self.assign(name, f"{self.page.use('diffusers', use.class_name)}.from_pipe", arguments)
            if use.scheduler != first.scheduler:
                self._set_scheduler(name, use, base)
        return name

    def _set_scheduler(self, name: str, use: Use, base: str) -> None:
        class_name, options = use.scheduler or ("", ())
        if not class_name:
            cls = f"type({base}.scheduler)"
        else:
            cls = self.page.use("diffusers", class_name)
        arguments = [f"{base}.scheduler.config", *(f"{key}={literal(value)}" for key, value in options)]
        self.assign(f"{name}.scheduler", f"{cls}.from_config", arguments)

    def load(self, model: Model, function: str, arguments: Sequence[str]) -> None:
        """Writes the first pipeline of loaded weights: that of their first use in the graph.

        Args:
            function: the class's method, ``from_pretrained``.
            arguments: of the method.
        """
        loaded = model.loaded
        uses = self.before.of(loaded)
        plain = [use for use in uses if not use.nets and not use.pag_layers and not use.vae]
        class_name = plain[0].class_name if plain else next(iter(loaded.family.pipeline_classes.values()))
        shared = {use.scheduler for use in uses}
        scheduler = shared.pop() if len(shared) == 1 else None
        first = Use(loaded.key, class_name, scheduler)
        self._first[loaded.key] = first
        self._pipelines[first] = loaded.name
        cls = self.page.use("diffusers", class_name)
        self.assign(loaded.name, f"{cls}.{function}", arguments, ".to(DEVICE)")
        if scheduler is not None:
            self._set_scheduler(loaded.name, first, loaded.name)

    def set_adapters(self, model: Model, pipeline: str) -> None:
        """Before the model is used: its LoRAs at their strengths, and those of other branches at 0."""
        adapters = self.before.adapters.get(model.loaded.key)
        if not adapters:
            return
        known: dict[str, str] = {}
        for lora in model.loras:
            if lora.strength == lora.text_strength or not model.family.text_encoders:
                known[lora.adapter] = number(lora.strength)
                continue
            parts = {
                model.family.denoiser: lora.strength,
                **dict.fromkeys(model.family.text_encoders, lora.text_strength),
            }
            known[lora.adapter] = (
                "{" + ", ".join(f"{literal(key)}: {number(value)}" for key, value in parts.items()) + "}"
            )
        weights = ", ".join(known.get(one, "0.0") for one in adapters)
        if self._active.get(model.loaded.key) == weights:
            return
        self._active[model.loaded.key] = weights
        names = ", ".join(map(literal, adapters))
        self.line(call(f"{pipeline}.set_adapters", [f"[{names}]", f"[{weights}]"]))

    # Latents

    def decoded(self, latent: Latent, model: Model, *, tiled: bool = False, name: str = "") -> Picture:
        """Latents of a model as a picture."""
        pipeline = self.plain_pipeline(model)
        movq = (model.vae or model).family.autoencoder == "movq"
        name = name or self.page.name(f"{latent.name}_decoded")
        arguments = [pipeline, latent.name, *(["tiled=True"] if tiled or model.tiled else [])]
        self.assign(name, self.page.part("decode_movq" if movq else "decode"), arguments)
        return Picture(name, latent.batch, latent.size)

    def reads(self, model: Model, latent: Latent) -> bool:
        """Whether the model can read the latent as it is."""
        return latent.model is None or latent.model.space == model.space


def joined(arguments: Iterable[str | None]) -> list[str]:
    return [one for one in arguments if one]
