"""The inputs that the loading nodes have alike, and what the hub's nodes do with theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from comfy_api.latest import io

from . import comfy_host

if TYPE_CHECKING:
    import torch

    from ..pipelines.base.monitor import Monitor


class HubLoader(Protocol):
    """Loads what a repository of the hub holds."""

    def __call__(self, repo_id: str, *, revision: str, variant: str, dtype: torch.dtype, monitor: Monitor) -> Any: ...


def dtype() -> Any:
    return io.Combo.Input(
        "dtype",
        options=list(comfy_host.DTYPES),
        default="auto",
        tooltip="The precision of the weights in memory. auto: what ComfyUI would use on this device.",
    )


def of_the_hub(example: str) -> list[io.Input]:
    """What a repository of the hub is named with. ``example``: the default, owner/name."""
    return [
        io.String.Input(
            "repo_id",
            default=example,
            tooltip="owner/name of the repository on the Hugging Face Hub.",
        ),
        io.String.Input("revision", default="", tooltip="A branch, tag or commit. Empty: the main branch."),
        io.Combo.Input(
            "variant",
            options=["auto", "fp16", "none"],
            default="auto",
            tooltip="Which weight files to take. auto: the fp16 files for a half-precision dtype and the plain files for float32, or whichever are there. fp16, none: those and no others.",
        ),
        dtype(),
    ]


def refusal_of_repo(repo_id: str | None) -> bool | str:
    """What the host shows at repo_id before the prompt runs; True where there is nothing to say."""
    from ..pipelines.downloads.hub_names import check_repo_id

    return comfy_host.refusal(lambda value: check_repo_id(value.strip()), repo_id)


def load_from_hub(
    node: type[io.ComfyNode], load: HubLoader, repo_id: str, revision: str, variant: str, dtype: str
) -> io.NodeOutput:
    """What a node of the hub gives for the inputs of :func:`of_the_hub`."""
    monitor = comfy_host.runtime_for(node).monitor
    weights = comfy_host.pick_dtype(dtype)
    return io.NodeOutput(
        load(repo_id.strip(), revision=revision.strip(), variant=variant, dtype=weights, monitor=monitor)
    )
