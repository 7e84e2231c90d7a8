"""Applies a model's options during a stage. Attention, compiled code and global settings are restored afterwards.

The memory format of shared weights is not restored after a stage. It changes when the next stage needs the other format, because
a change copies the weights, and a graph rarely uses both.

Source: https://huggingface.co/docs/diffusers/optimization/fp16
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.monitor import Monitor
from ..latents.autoencoder import autoencoder_of
from ..model.components import PipelineComponents
from ..model.options import ModelOptions

if TYPE_CHECKING:
    import torch

RECOMPILE_LIMIT = 64
"""Variants of one piece of code: block widths x sizes x guidance on and off, over all models of a process. By default torch stops
compiling at 8, logs a line, and continues uncompiled."""
COMPILER_MODULES = ("torch._dynamo", "torch._inductor", "torch.fx", "triton")
FLOAT32_MATMUL = {"default": None, "onednn": "bf16"}
"""Choice -> ``torch.backends.mkldnn.matmul.fp32_precision``. oneDNN then runs float32 matmul, and multiplies in bfloat16 only
on processors that have instructions for it."""

BACKEND = "inductor"
COMPILED = "_relay_compiled"
"""The attribute of a denoiser with its compiled calls: mode -> name of a submodule -> call; "" is the whole module. The calls
reference the module, as with ``torch.nn.Module.compile``, so they must not be kept anywhere else."""


def with_options(components: PipelineComponents, options: ModelOptions, device: torch.device) -> PipelineComponents:
    """A view of the model with ``options`` instead of its own.

    Args:
        device: where the denoiser will run.

    Raises:
        RelayError: an option does not exist, or would have no effect here.
    """
    family, source = components.family, components.source
    if family.autoencoder is None:
        raise RelayError(
            f"model: {source} ({family.title}) has nothing to optimise here, because its few steps are small. Connect a model that paints."
        )
    for name, enabled in (("vae_tiling", options.vae_tiling), ("vae_slicing", options.vae_slicing)):
        if not enabled:
            continue
        autoencoder = autoencoder_of(components).module
        if not hasattr(autoencoder, name.replace("vae_", "use_")):
            raise RelayError(
                f"{name}: the autoencoder of {source} ({type(autoencoder).__name__}) does not support it. Switch it off."
            )
    _check_attention(components, options.attention)
    if options.attention == "xformers":
        _check_xformers(device)
    if options.matmul != "default":
        _check_matmul(components, device)
    return components.with_changes(options=options)


def _check_xformers(device: torch.device) -> None:
    import importlib.util

    if importlib.util.find_spec("xformers") is None:
        raise RelayError(
            "attention: xformers is not installed. Install the version for your torch (pip install xformers), or choose sdpa, which "
            "is as fast on current versions of torch."
        )
    if device.type != "cuda":
        raise RelayError(f"attention: xformers runs on CUDA only, and the model runs on {device.type}. Choose sdpa.")


def _check_matmul(components: PipelineComponents, device: torch.device) -> None:
    import torch

    if device.type != "cpu" or components.dtype != torch.float32:
        dtype = str(components.dtype).removeprefix("torch.")
        raise RelayError(
            f"matmul: it only works in float32 on a CPU, and {components.source} is in {dtype} on {device.type}. "
            "Set it to default."
        )
    if not torch.backends.mkldnn.is_available():
        raise RelayError("matmul: this torch has no oneDNN. Set it to default.")


@contextmanager
def in_force(components: PipelineComponents, modules: Sequence[torch.nn.Module], monitor: Monitor) -> Iterator[None]:
    """Applies the view's options to ``modules`` (the denoiser, ControlNets) inside the block.

    Raises:
        RelayError: torch could not compile.
    """
    options = components.options
    for module in modules:
        _set_memory_format(module, options.channels_last)
    with ExitStack() as stack:
        if options.attention != "auto":
            for module in modules:
                stack.enter_context(_attention(module, options.attention))
        if options.matmul != "default":
            stack.enter_context(_float32_matmul(options.matmul))
        if options.compile != "off":
            stack.enter_context(_compilation(modules, options.compile, components.source, monitor))
        yield


def _set_memory_format(module: torch.nn.Module, channels_last: bool) -> None:
    import torch

    if _is_channels_last(module) == channels_last:
        return
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    with torch.inference_mode(False):  # otherwise the weights would become inference tensors
        for weight in module.parameters():
            if weight.ndim == 4:
                # Module.to would not do: it treats a 1x1 convolution as being in both formats and keeps its strides, and torch
                # chooses the kernel by the strides.
                weight.data = weight.data.clone(memory_format=memory_format)


def _is_channels_last(module: torch.nn.Module) -> bool:
    """Decided by the first convolution whose weight has different layouts in the two formats."""
    import torch

    for weight in module.parameters():
        if weight.ndim == 4:
            last, first = weight.is_contiguous(memory_format=torch.channels_last), weight.is_contiguous()
            if last != first:
                return last
    return False


@contextmanager
def _attention(module: Any, name: str) -> Iterator[None]:
    before = dict(module.attn_processors)
    try:
        if name == "sliced":
            module.set_attention_slice("auto")
        else:
            module.set_attn_processor({key: _processor(name, old) for key, old in before.items()})
        yield
    finally:
        module.set_attn_processor(before)


PROCESSORS = {
    "AttnAddedKVProcessor": {"sdpa": "AttnAddedKVProcessor2_0", "xformers": "XFormersAttnAddedKVProcessor"},
    "AttnProcessor": {"sdpa": "AttnProcessor2_0", "xformers": "XFormersAttnProcessor"},
    "JointAttnProcessor": {"sdpa": "JointAttnProcessor2_0", "xformers": "XFormersJointAttnProcessor"},
}
"""Kind of layer -> choice -> diffusers' processor for it. Kandinsky's layers add the image embeddings to keys and values;
Stable Diffusion 3's layers process the picture and the text together."""


def _kind_of(processor: Any) -> str:
    """The key in :data:`PROCESSORS` for a layer's own processor, whatever its version."""
    return type(processor).__name__.removeprefix("XFormers").removeprefix("Sliced").removesuffix("2_0")


def _processor(name: str, old: Any) -> Any:
    from diffusers.models import attention_processor as processors

    return getattr(processors, PROCESSORS[_kind_of(old)][name])()


def _check_attention(components: PipelineComponents, name: str) -> None:
    denoiser = components[components.family.denoiser]
    able = ["auto"]
    if all(_kind_of(one) in PROCESSORS for one in denoiser.attn_processors.values()):
        able += ["sdpa", "xformers"]
    if hasattr(denoiser, "set_attention_slice"):
        able.append("sliced")
    if name not in able:
        raise RelayError(
            f"attention: the layers of {components.source} ({components.family.title}) can't use {name}. They can use: {', '.join(able)}."
        )


@contextmanager
def _float32_matmul(name: str) -> Iterator[None]:
    """The setting is global to the process, so the host's value is restored afterwards."""
    import torch

    settings = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009, missing in the type stubs
    before = settings.fp32_precision
    try:
        settings.fp32_precision = FLOAT32_MATMUL[name]
        yield
    finally:
        settings.fp32_precision = before


@contextmanager
def _compilation(modules: Sequence[torch.nn.Module], mode: str, source: str, monitor: Monitor) -> Iterator[None]:
    import torch._dynamo

    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    borrowed: list[Any] = []
    try:
        for module in modules:
            by_mode: dict[str, dict[str, Any]] = vars(module).setdefault(COMPILED, {})
            if mode not in by_mode:
                monitor.say(
                    f"Compiling {source}: the first step takes longer, and so does the first step at each new size."
                )
                by_mode[mode] = _compile(module, mode)
            for name, call in by_mode[mode].items():
                submodule: Any = module.get_submodule(name)
                submodule._compiled_call_impl = call
                borrowed.append(submodule)
        with torch._dynamo.config.patch({limit: RECOMPILE_LIMIT}):
            yield
    except Exception as error:
        if type(error).__module__.startswith(COMPILER_MODULES):
            raise RelayError(
                f"compile: torch could not compile {source} ({type(error).__name__}: {str(error).strip().splitlines()[0]}). It needs a C++ "
                "compiler on a CPU, and Triton on a GPU. Set compile to off, or install it."
            ) from error
        raise
    finally:
        for submodule in borrowed:
            submodule._compiled_call_impl = None


def _compile(module: Any, mode: str) -> dict[str, Any]:
    """Name of a submodule -> its compiled call. Nothing is compiled before the first call.

    On a GPU, the whole module is compiled. On a CPU, where that would take minutes, only the repeated blocks are compiled, once for
    each width.
    """
    import torch
    from diffusers import UNet2DConditionModel

    own = getattr(module, "_repeated_blocks", None) or (getattr(module, "_no_split_modules", None) or [])
    blocks = own or UNet2DConditionModel._repeated_blocks  # a ControlNet has the same blocks as a UNet
    names = [name for name, part in module.named_modules() if type(part).__name__ in blocks]
    if module.device.type != "cpu" or not names:
        names = [""]
    return {name: torch.compile(module.get_submodule(name)._call_impl, mode=mode, backend=BACKEND) for name in names}
