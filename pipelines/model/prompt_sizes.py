"""Adds SDXL's sizes to a prompt, and checks that a run reads them."""

from __future__ import annotations

from dataclasses import replace

from ..base.errors import RelayError
from ..base.images import Extent
from .components import PipelineComponents
from .embeds import ImageEmbeds, PromptEmbeds
from .family import Task
from .family_lookup import titles_of
from .sdxl_sizes import PictureSizes, SdxlSizes

MOST_PIXELS = 16384
"""The longest side, and the most pixels that a crop can cut off."""


def with_sizes(prompt: PromptEmbeds | ImageEmbeds, sizes: SdxlSizes) -> PromptEmbeds:
    """The prompt with other sizes. Its embeddings are shared.

    Raises:
        RelayError: the prompt has image embeddings, or a size or crop is out of range.
    """
    if isinstance(prompt, ImageEmbeds):
        raise RelayError(
            f"prompt: it has image embeddings of {prompt.title}, and only {_families()} read sizes. Connect a prompt from Encode Prompt."
        )
    for side, one in (("", sizes.prompt), ("negative_", sizes.negative)):
        for name, extent in (("original", one.original), ("target", one.target)):
            if extent is not None:
                _check_size(f"{side}{name}", extent)
        for name, pixels in (("crop_left", one.crop_left), ("crop_top", one.crop_top)):
            if not 0 <= pixels <= MOST_PIXELS:
                raise RelayError(f"{side}{name}: {pixels} is not between 0 and {MOST_PIXELS} pixels.")
    return replace(prompt, sizes=sizes)


def check_sizes(
    prompt: PromptEmbeds | ImageEmbeds, components: PipelineComponents, task: Task, *, controlled: bool = False
) -> None:
    """Refuses sizes that the run would ignore. ``controlled``: it has ControlNets.

    Raises:
        RelayError: the model's family reads no sizes, or its pipeline for ``task`` does not read one that is set.
    """
    if isinstance(prompt, ImageEmbeds) or prompt.sizes is None:
        return
    sizes = prompt.sizes
    family = components.family
    if not family.reads_sizes:
        raise RelayError(
            f"prompt: it has sizes from SDXL Size, but {components.source} ({family.title}) reads none. "
            f"Connect the prompt without SDXL Size, or use one of: {_families()}."
        )
    target = sizes.prompt.target or sizes.negative.target
    if components.config.get("requires_aesthetics_score") and target is not None:
        raise RelayError(
            f"target_width, target_height: {target} is set in SDXL Size, but {components.source} ({family.title}) reads aesthetic scores "
            "instead of a target size. Set all target sizes to 0."
        )
    if controlled and task is Task.INPAINT and sizes.negative != PictureSizes():
        raise RelayError(
            "prompt, control: diffusers' inpainting with ControlNets has no sizes for the negative prompt. "
            "Set those in SDXL Size to 0, or disconnect control."
        )


def _check_size(name: str, extent: Extent) -> None:
    names = f"{name}_width, {name}_height"
    if (extent.width == 0) != (extent.height == 0):
        raise RelayError(f"{names}: {extent} is no size. Enter both, or leave both at 0.")
    if not (0 < extent.width <= MOST_PIXELS and 0 < extent.height <= MOST_PIXELS):
        raise RelayError(f"{names}: {extent} is not between 1x1 and {MOST_PIXELS}x{MOST_PIXELS} pixels.")


def _families() -> str:
    return titles_of(lambda family: family.reads_sizes)
