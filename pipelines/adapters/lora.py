"""LoRAs: a model only lists them; they are active in the shared modules only while a stage runs.

A stage injects the adapters into the modules and removes them again, which takes 0.16 s and 0.03 s for a Stable Diffusion
1.5 UNet. If they stayed, they would change the layer names, memory use and speed of every other branch with the same modules.
Changes that are not plain LoRAs are merged for the stage, see :mod:`.weight_changes`.
Source: https://huggingface.co/docs/diffusers/tutorials/using_peft_for_inference
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.registry import REGISTRY, file_identity
from ..files.safetensors import HOW_TO_CONVERT_WEIGHTS, check_file
from ..model.adapters import Lora, LoraLayer
from ..model.components import PipelineComponents
from ..model.family_lookup import titles_of
from .lora_file import read_lora
from .lora_names import places
from .weight_changes import merged

if TYPE_CHECKING:
    import torch

ADAPTER_ATTRIBUTES = ("peft_config", "_hf_peft_config_loaded", "_weight_conversions")
"""Attributes that peft, diffusers and transformers set on a module with an adapter."""


def with_lora(
    components: PipelineComponents, path: Path, *, title: str, strength: float, text_strength: float
) -> PipelineComponents:
    """A copy of ``components`` with one more LoRA. The shared modules don't change until a stage runs.

    Args:
        path: a safetensors file with names that :mod:`.lora_names` knows.
        title: the file's name for messages.
        strength: strength for the denoiser.
        text_strength: strength for the text encoders.

    Raises:
        RelayError: the family can't use LoRAs, a strength is not finite, or :func:`.lora_file.read_lora` raises it.
    """
    family = components.family
    for name, value in (("strength", strength), ("text_strength", text_strength)):
        if not math.isfinite(value):
            raise RelayError(f"{name}: {value} is not a finite number. Use 0 to 1, or a little more.")
    if not _takes_loras(family):
        able = titles_of(_takes_loras)
        raise RelayError(
            f"model: {components.source} ({family.title}) can't use a LoRA: diffusers does not support LoRAs for it. Families that can: {able}."
        )
    check_file(path, f"lora: {title}", HOW_TO_CONVERT_WEIGHTS)
    names = (family.denoiser, *components.text_encoders)
    modules = {name: components[name] for name in names}
    table = places(modules, family.denoiser, components.text_encoders)
    # Models with the same layers share the weights of a file.
    layout = hash(
        tuple(
            (name, place, modules[place.component].get_submodule(place.layer).weight.shape)
            for name, place in table.items()
        )
    )
    model = f"{components.source} ({family.title})"
    key = ("lora", file_identity(path), layout)
    has_encoders = not components.lacks_text_encoders
    weights = REGISTRY.get(
        key, lambda: read_lora(path, table, modules, title=title, model=model, has_encoders=has_encoders)
    )
    lora = Lora(title, weights, strength, text_strength)
    _check_range(lora, modules, model)
    return components.with_changes(loras=(*components.loras, lora))


@contextmanager
def active_loras(components: PipelineComponents, names: Iterable[str]) -> Iterator[None]:
    """Inside this context, the model's LoRAs are active in its modules ``names``. Afterwards the modules are restored."""
    with ExitStack() as stack:
        for name in names:
            chosen = [(lora, strength) for lora in components.loras if (strength := lora.strength_in(name))]
            if chosen:
                stack.enter_context(merged(components[name], name, chosen))
            adapters = [(lora, strength) for lora, strength in chosen if name in lora.weights.layers]
            if adapters:
                stack.enter_context(_restored(components[name]))
                _inject(components[name], adapters, name)
        yield


def _inject(module: Any, chosen: list[tuple[Lora, float]], name: str) -> None:
    import warnings

    from diffusers.utils.peft_utils import set_weights_and_activate_adapters

    adapters, strengths = [], []
    for index, (lora, strength) in enumerate(chosen):
        own = lora.weights.layers[name]
        plain = {layer: one for layer, one in own.items() if one.magnitude is None}
        dora = {layer: one for layer, one in own.items() if one.magnitude is not None}
        for adapter, layers in ((f"relay_{index}", plain), (f"relay_{index}_dora", dora)):
            if layers:
                with warnings.catch_warnings():
                    # several adapters are intended
                    warnings.filterwarnings("ignore", message="Already found a `peft_config`")
                    _add_adapter(module, adapter, layers)
                adapters.append(adapter)
                strengths.append(strength)
    set_weights_and_activate_adapters(module, adapters, strengths)


def _add_adapter(module: Any, adapter: str, layers: dict[str, LoraLayer]) -> None:
    """Adds a peft adapter with the weights of ``layers`` at scale 1; alpha is already multiplied in.

    peft reads the keys of ``rank_pattern`` as regular expressions: there is one for each rank, of escaped names.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    by_rank: dict[int, list[str]] = {}
    for name, layer in layers.items():
        by_rank.setdefault(layer.rank, []).append(name)
    ranks = {f"^(?:{'|'.join(map(re.escape, names))})": rank for rank, names in by_rank.items()}
    common = next(iter(ranks.values()))
    several = len(ranks) > 1
    config = LoraConfig(
        r=common,
        lora_alpha=common,
        rank_pattern=ranks if several else {},
        alpha_pattern=ranks if several else {},
        target_modules=list(layers),
        use_dora=next(iter(layers.values())).magnitude is not None,
    )
    keys = {f"{name}.lora_A.weight": layer.down for name, layer in layers.items()}
    inject_adapter_in_model(config, module, adapter_name=adapter, low_cpu_mem_usage=True, state_dict=keys)
    for name, layer in layers.items():
        adapted = module.get_submodule(name)
        base = adapted.get_base_layer().weight

        def parameter_like(tensor: torch.Tensor, like: torch.Tensor = base) -> torch.nn.Parameter:
            return torch.nn.Parameter(tensor.to(like.device, like.dtype), requires_grad=False)

        adapted.lora_A[adapter].weight = parameter_like(layer.down)
        adapted.lora_B[adapter].weight = parameter_like(layer.up)
        if layer.magnitude is not None:
            adapted.lora_magnitude_vector[adapter].weight = parameter_like(layer.magnitude)
        adapted.eval()


@contextmanager
def _restored(root: torch.nn.Module) -> Iterator[None]:
    """On exit, restores every submodule and removes the adapter attributes from ``root``, even after an error.

    Other attributes are kept: at the first call, transformers records on the module which hooks it has added to the layers.
    """
    children = [(module, dict(module._modules)) for module in root.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in root.parameters()]
    attributes = {name: vars(root)[name] for name in ADAPTER_ATTRIBUTES if name in vars(root)}
    try:
        yield
    finally:
        for module, before in children:
            module._modules.clear()
            module._modules.update(before)
        for parameter, required in gradients:
            parameter.requires_grad_(required)
        for name in ADAPTER_ATTRIBUTES:
            vars(root).pop(name, None)
        vars(root).update(attributes)


def _check_range(lora: Lora, modules: Mapping[str, Any], model: str) -> None:
    """Raises if a value is too large for the model's dtype: it would be infinite there, and the image empty."""
    import torch

    for component, largest in lora.weights.largest.items():
        dtype = modules[component].dtype
        most = torch.finfo(dtype).max
        if lora.strength_in(component) and largest > most:
            advice = "Load the model with dtype bfloat16 or float32, or use another LoRA."
            raise RelayError(
                f"lora: {lora.title} has values up to {largest:.3g}, but {model} in {str(dtype).removeprefix('torch.')} only reaches {most:.5g}. "
                f"{advice if dtype == torch.float16 else 'Use another LoRA.'}"
            )


def _pipeline_class(family: Any) -> Any:
    """Any pipeline class of the family; they all load LoRAs in the same way."""
    return family.pipeline_class(next(iter(family.pipeline_classes)))


def _takes_loras(family: Any) -> bool:
    return hasattr(_pipeline_class(family), "load_lora_into_unet")
