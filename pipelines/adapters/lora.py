"""LoRA: a choice that a view of a model carries, and that is active in the shared modules for the length of a stage only.

A stage borrows the modules, puts the adapters in, and takes them out again. On a Stable Diffusion 1.5 UNet of real size
that costs 0.16 s and 0.03 s; kept in, they would change the names, the memory and the speed of every other branch's model.
Source: https://huggingface.co/docs/diffusers/tutorials/using_peft_for_inference
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.registry import REGISTRY, file_identity
from ..files.safetensors import HOW_TO_CONVERT_WEIGHTS, check_file
from ..model.components import PipelineComponents
from ..model.family import FAMILIES

if TYPE_CHECKING:
    import torch

ADAPTER_ATTRIBUTES = ("peft_config", "_hf_peft_config_loaded", "_weight_conversions")
"""What diffusers and transformers note on a module into which they load an adapter."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
SIGNS = {
    "SDXL": ("lora_te2_", "text_encoder_2.", "lora_te1_"),
    "Flux": ("double_blocks", "single_transformer_blocks"),
    "Stable Diffusion 3 or another transformer": ("transformer.", "joint_blocks", "lora_transformer_"),
}
"""What a LoRA was made for -> pieces of its tensors' names, most telling first."""
CONTEXT_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}
"""Width of the text that the denoiser reads -> what was made for it."""


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One file, read once: diffusers' ``lora_state_dict``. Shared by every view that uses it, and gone with the last."""

    tensors: Mapping[str, torch.Tensor]
    """``unet.``, ``text_encoder.`` and ``text_encoder_2.`` in diffusers' names."""
    alphas: Mapping[str, float] | None
    metadata: Mapping[str, Any] | None
    """The adapter's config where the file brings one."""

    def has_part(self, component: str) -> bool:
        return any(name.startswith(f"{component}.") for name in self.tensors)


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA as one view of a model uses it."""

    title: str
    """The file's name, for messages and marks."""
    weights: LoraWeights
    strength: float
    """Of the denoiser's part; 0 leaves it out."""
    text_strength: float
    """Of the text encoders' parts; 0 leaves them out."""

    def strength_in(self, component: str) -> float:
        """0 where the LoRA does nothing to ``component``."""
        wanted = self.text_strength if component.startswith("text_encoder") else self.strength
        return wanted if self.weights.has_part(component) else 0.0

    @property
    def mark(self) -> str | None:
        """What it makes of the text encoders; None: they are as without it."""
        if not self.text_strength or not any(name.startswith("text_encoder") for name in self.weights.tensors):
            return None
        return f"LoRA {self.title} at text_strength {self.text_strength:g}"


def with_lora(
    components: PipelineComponents, path: Path, *, title: str, strength: float, text_strength: float
) -> PipelineComponents:
    """A view of the model with one more LoRA; the modules stay as they are until a stage runs.

    Args:
        path: a safetensors file in the names of kohya or of diffusers.
        title: what messages call it.
        strength: for the denoiser.
        text_strength: for the text encoders.

    Raises:
        RelayError: the family takes none, a strength is no number, the file is damaged or no LoRA, or it was made for
            a model of another kind.
    """
    family = components.family
    for name, value in (("strength", strength), ("text_strength", text_strength)):
        if not math.isfinite(value):
            raise RelayError(
                f"{name}: {value} is not a number that a LoRA can be multiplied by. Use 0 to 1, or a little beyond."
            )
    if not _takes_loras(family):
        able = ", ".join(one.title for one in FAMILIES if _takes_loras(one))
        raise RelayError(
            f"model: {components.source} ({family.title}) can't use a LoRA: diffusers has none for its pipelines. Families that can: {able}."
        )
    check_file(path, f"lora: {title}", HOW_TO_CONVERT_WEIGHTS)
    unet_config = components["unet"].config
    key = ("lora", file_identity(path), _pipeline_class(family).__name__, unet_config.layers_per_block)
    weights = REGISTRY.get(key, lambda: _read(path, components, title))
    _check_fit(weights, components, title)
    return components.with_changes(loras=(*components.loras, Lora(title, weights, strength, text_strength)))


@contextmanager
def active_loras(components: PipelineComponents, names: Iterable[str]) -> Iterator[None]:
    """The LoRAs of this view are active in its modules ``names`` inside the block; the modules go back as they were."""
    with ExitStack() as stack:
        for name in names:
            chosen = [(lora, strength) for lora in components.loras if (strength := lora.strength_in(name))]
            if chosen:
                stack.enter_context(_as_found(components[name]))
                _inject(components, name, chosen)
        yield


def _inject(components: PipelineComponents, name: str, chosen: list[tuple[Lora, float]]) -> None:
    import warnings

    from diffusers.utils.peft_utils import set_weights_and_activate_adapters

    cls, module = _pipeline_class(components.family), components[name]
    adapters = [f"relay_{index}" for index in range(len(chosen))]
    for adapter, (lora, _) in zip(adapters, chosen):
        tensors, metadata = dict(lora.weights.tensors), lora.weights.metadata
        arguments: dict[str, Any] = {
            "network_alphas": None if lora.weights.alphas is None else dict(lora.weights.alphas),
            "adapter_name": adapter,
            "metadata": None if metadata is None else dict(metadata),
            "low_cpu_mem_usage": True,
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several are what is wanted
            if name == components.family.denoiser:
                cls.load_lora_into_unet(tensors, unet=module, **arguments)
            else:
                cls.load_lora_into_text_encoder(tensors, text_encoder=module, prefix=name, **arguments)
    set_weights_and_activate_adapters(module, adapters, [strength for _, strength in chosen])


@contextmanager
def _as_found(root: torch.nn.Module) -> Iterator[None]:
    """Every submodule in its place again, and nothing of an adapter on ``root``, whatever was put in and however it ended.

    Other attributes stay as they are: transformers notes there, at the first call, which hooks it has put on the layers.
    """
    children = [(module, dict(module._modules)) for module in root.modules()]
    attributes = {name: vars(root)[name] for name in ADAPTER_ATTRIBUTES if name in vars(root)}
    try:
        yield
    finally:
        for module, before in children:
            module._modules.clear()
            module._modules.update(before)
        for name in ADAPTER_ATTRIBUTES:
            vars(root).pop(name, None)
        vars(root).update(attributes)


def _read(path: Path, components: PipelineComponents, title: str) -> LoraWeights:
    import torch

    cls = _pipeline_class(components.family)
    # SDXL's loader alone tells lora_state_dict the config, with which it finds kohya's names of the blocks.
    options = {"unet_config": components["unet"].config} if components.family.has_pooled_embeds else {}
    try:
        with torch.inference_mode(False):  # what is made inside of it could be used nowhere else
            tensors, alphas, metadata = cls.lora_state_dict(
                str(path.parent),
                weight_name=path.name,  # offline, some versions do not take a file's own path
                use_safetensors=True,
                local_files_only=True,
                return_lora_metadata=True,
                **options,
            )
    except Exception as error:  # whatever a file of unknown make leads to
        made_for = _made_for(_names_in(path))
        raise RelayError(
            f"lora: {title} is not a LoRA that diffusers can read for {components.source} ({components.family.title})"
            f"{made_for and f'; it looks made for {made_for}'}: {error}. Use one in the format of kohya or diffusers."
        ) from error
    return LoraWeights(tensors, alphas, metadata)


def _check_fit(weights: LoraWeights, components: PipelineComponents, title: str) -> None:
    """Every tensor has its layer, of its shape, in this model: known before anything is put in."""
    parts = (components.family.denoiser, *components.family.text_encoders)
    strangers = [name for name in weights.tensors if name.split(".")[0] not in parts or "lora" not in name]
    if strangers or not weights.tensors:
        raise _misfit(weights, components, title, f"it has {strangers[0]}" if strangers else "it is empty")
    for part in parts:
        layers = dict(components[part].named_modules())
        for name, tensor in _peft_names(weights, part, components[part]).items():
            layer_name, kind = next(
                ((name.removesuffix(end), end) for end in (DOWN, UP) if name.endswith(end)), (name, "")
            )
            own = getattr(layers.get(layer_name), "weight", None)
            if own is None or not kind:
                raise _misfit(weights, components, title, f"the model's {part} has no layer for {name}")
            side = 1 if kind == DOWN else 0
            if tensor.ndim != own.ndim or tensor.shape[side] != own.shape[side]:
                raise _misfit(
                    weights,
                    components,
                    title,
                    f"{part}.{name} is {list(tensor.shape)}, for a layer of {list(own.shape)}",
                )


def _peft_names(weights: LoraWeights, part: str, module: Any) -> dict[str, torch.Tensor]:
    """The tensors of one component under the names of its layers, by the steps of diffusers' own loaders."""
    from diffusers.utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    own = {name.removeprefix(f"{part}."): t for name, t in weights.tensors.items() if name.startswith(f"{part}.")}
    if not own:
        return {}
    if not part.startswith("text_encoder"):
        return own if "lora_A" in next(iter(own)) else convert_unet_state_dict_to_peft(own)
    own = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))
    return own if hasattr(module, "text_model") else {name.removeprefix("text_model."): t for name, t in own.items()}


def _misfit(weights: LoraWeights, components: PipelineComponents, title: str, what: str) -> RelayError:
    contexts = [
        t.shape[1]
        for name, t in weights.tensors.items()
        if "attn2" in name and "to_k" in name and t.ndim == 2 and (".down." in name or DOWN in name)
    ]
    made_for = _made_for(weights.tensors) or CONTEXT_WIDTHS.get(
        contexts[0] if contexts else 0, "a model of another kind"
    )
    return RelayError(
        f"lora: {title} looks made for {made_for} and does not fit {components.source} ({components.family.title}): {what}. "
        "Use a LoRA that was trained for this kind of model."
    )


def _made_for(names: Iterable[str]) -> str:
    names = list(names)
    return next((kind for kind, signs in SIGNS.items() if any(sign in name for name in names for sign in signs)), "")


def _names_in(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _pipeline_class(family: Any) -> Any:
    """Any class of the family: all of them load a LoRA alike."""
    return family.pipeline_class(next(iter(family.pipeline_classes)))


def _takes_loras(family: Any) -> bool:
    return hasattr(_pipeline_class(family), "load_lora_into_unet")
