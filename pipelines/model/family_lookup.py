"""Finds the family of a model, and the families that can do something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd

from ..base.errors import RelayError, shown
from .component_classes import Classes
from .family import ModelFamily, Task
from .family_table import FAMILIES

EDITS = (
    "it edits a picture by an instruction, with an image_guidance_scale and without a strength, and no node does that"
)
WHY_NOT = {
    "StableDiffusionInstructPix2PixPipeline": EDITS,
    "StableDiffusionXLInstructPix2PixPipeline": EDITS,
}
"""Pipelines that a user may expect here -> why the pack does not run them."""


def titles_of(can: Callable[[ModelFamily], bool]) -> str:
    """The titles of the families for which ``can`` holds, for a message."""
    return ", ".join(family.title for family in FAMILIES if can(family))


def size_step() -> int:
    """The pixels that every size of text-to-image is a multiple of, in all families."""
    return gcd(*(family.size_multiple for family in FAMILIES if Task.TEXT_TO_IMAGE in family.pipeline_classes))


def controlnet_classes() -> tuple[Classes, ...]:
    """The classes of the ControlNets of all families, ControlNet Unions included."""
    found = (kind for family in FAMILIES for kind in (family.controlnet, family.controlnet_union) if kind is not None)
    return tuple({kind.names: kind for kind in found}.values())


def require_task(family: ModelFamily, task: Task, source: str, said: Task | None = None) -> None:
    """Raises RelayError if ``family`` has no pipeline for ``task``.

    ``source``: the model, for the message. ``said``: the task for the message, if it is not ``task``.
    """
    if task not in family.pipeline_classes:
        raise RelayError(
            f"model: {source} ({family.title}) can't do {(said or task).value}. Families that can: "
            f"{titles_of(lambda family: task in family.pipeline_classes)}."
        )


def recognise(model_index: Mapping[str, object], where: str) -> ModelFamily:
    """:func:`declared_family`, if the installed diffusers has it.

    Raises:
        RelayError: as there, or diffusers is too old for the family.
    """
    family = declared_family(model_index, where)
    _require_version(family, where)
    return family


def declared_family(model_index: Mapping[str, object], where: str) -> ModelFamily:
    """The family that a model_index.json declares. Imports no library.

    Args:
        model_index: the parsed file.
        where: the repo or folder, for the message.

    Raises:
        RelayError: there is no ``_class_name``, or it belongs to a family that the pack does not support.
    """
    class_name = model_index.get("_class_name")
    if not isinstance(class_name, str):
        raise RelayError(
            f"{where}: model_index.json has no pipeline class (_class_name is {shown(repr(class_name))}). It is damaged or does not belong to a diffusers model."
        )

    def lacks_what_it_must(family: ModelFamily) -> bool:
        return all(is_absent(model_index.get(name)) for name in family.recognised_without)

    found = [family for family in FAMILIES if class_name in family.recognised_by and lacks_what_it_must(family)]
    if not found:
        known = titles_of(lambda family: True)
        reason = f": {WHY_NOT[class_name]}" if class_name in WHY_NOT else ""
        raise RelayError(
            f"{where} is a {shown(class_name)}, which Diffusers Relay does not run{reason}. It runs: {known}."
        )
    return max(found, key=lambda one: len(one.recognised_without))


def _require_version(family: ModelFamily, where: str) -> None:
    import diffusers
    from packaging.version import Version

    if family.since is not None and Version(diffusers.__version__) < Version(family.since):
        raise RelayError(
            f"{where} is a {family.title} model, which needs diffusers {family.since} or newer; {diffusers.__version__} is installed. "
            "Update diffusers."
        )


def is_absent(entry: object) -> bool:
    """Whether a component's entry in model_index.json means that the model does not have it."""
    return entry is None or (isinstance(entry, (list, tuple)) and all(part is None for part in entry))
