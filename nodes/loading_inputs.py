"""Inputs that the loader nodes share, and the part that the hub loaders share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from comfy_api.latest import io

from ..pipelines.files.model_files import VARIANTS
from . import comfy_host

if TYPE_CHECKING:
    import torch

    from ..pipelines.base.monitor import Monitor


class HubLoader(Protocol):
    """Loads a model or ControlNet from a hub repository."""

    def __call__(
        self, repo_id: str, *, revision: str, subfolder: str, variant: str, dtype: torch.dtype, monitor: Monitor
    ) -> Any: ...


def dtype() -> Any:
    return io.Combo.Input(
        "dtype",
        options=list(comfy_host.DTYPES),
        default="auto",
        tooltip="The precision of the weights in memory. auto: what ComfyUI would use on this device. float16 and bfloat16 take half the memory of float32.",
        **comfy_host.advanced(io.Combo.Input),
    )


def repo_id(example: str) -> Any:
    """``example``: the default, owner/name."""
    return io.String.Input("repo_id", default=example, tooltip="The repository on the Hugging Face Hub, as owner/name.")


def revision() -> Any:
    return io.String.Input(
        "revision",
        default="",
        tooltip="A branch, tag or commit. Empty: the main branch.",
        **comfy_host.advanced(io.String.Input),
    )


def of_the_hub(example: str) -> list[io.Input]:
    """The inputs that name a model or ControlNet on the hub. ``example``: the default repository."""
    return [
        repo_id(example),
        revision(),
        io.Combo.Input(
            "variant",
            options=list(VARIANTS),
            default="auto",
            tooltip="Which weight files to load. auto: fp16 files for a half-precision dtype and plain files for float32, or whichever exist. fp16: only fp16 files. none: only plain files. bf16, non_ema: such files, and plain ones for parts of the model without them.",
            **comfy_host.advanced(io.Combo.Input),
        ),
        dtype(),
        io.String.Input(
            "subfolder",
            default="",
            optional=True,
            tooltip="The folder of the repository that has the model, such as controlnet/depth. Only files of this folder are downloaded. Empty: the top level.",
            **comfy_host.advanced(io.String.Input),
        ),
    ]


def refusal_of_repo(repo_id: str | None) -> bool | str:
    """The error to show at repo_id before the prompt runs, or True if there is none."""
    from ..pipelines.downloads.hub_names import check_repo_id

    return comfy_host.refusal(lambda value: check_repo_id(value.strip()), repo_id)


def load_from_hub(
    node: type[io.ComfyNode], load: HubLoader, repo_id: str, revision: str, subfolder: str, variant: str, dtype: str
) -> io.NodeOutput:
    """The output of a hub loader for the inputs of :func:`of_the_hub`."""
    monitor = comfy_host.runtime_for(node).monitor
    weights = comfy_host.pick_dtype(dtype)
    place = {"revision": revision.strip(), "subfolder": subfolder.strip()}
    return io.NodeOutput(load(repo_id.strip(), **place, variant=variant, dtype=weights, monitor=monitor))
