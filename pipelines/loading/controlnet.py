"""Loads a ControlNet from a folder or the hub. Each module is read once and shared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..base.monitor import Monitor
from ..control.units import ControlNet
from ..downloads.hub import RepoKind, fetch_repo, title_of
from ..files.component_files import CONFIG_OF_MODEL, ComponentFiles, MissingFiles
from ..files.config_files import read_json_object
from ..files.model_files import plan_single_component, short
from ..files.read_ahead import read_ahead, whole
from ..files.registry import REGISTRY, component_key
from ..files.safetensors import read_header
from ..model.component_classes import CONTROLNET_UNION, Classes
from ..model.family_lookup import controlnet_classes, titles_of
from .folder import check_configs, check_weights, load_component
from .union_file import control_types_of

if TYPE_CHECKING:
    import torch


def load_controlnet_folder(
    folder: Path, *, dtype: torch.dtype, variant: str = "auto", source: str | None = None, monitor: Monitor
) -> ControlNet:
    """Loads a ControlNet, or shares the module if it is already in memory.

    Args:
        folder: a folder with config.json and safetensors, as diffusers saves it.
        dtype: dtype of the weights in memory; must be the same as the model's.
        variant: see :func:`.model_files.plan_files`.
        source: the name for messages; the folder's path if None.

    Raises:
        RelayError: the folder does not contain a ControlNet that the pack runs, is incomplete or damaged, or only has pickles.
    """
    where = source or str(folder)
    try:
        (files,) = _plan(folder, files_in(folder), variant, dtype, where)
    except MissingFiles as error:
        raise MissingFiles(f"{error} The ControlNet is not complete: download or save it again.") from None
    check_weights(folder, files, where)
    files = _as_union(folder, files, where)
    monitor.check()
    key = component_key(folder, files, dtype)
    if key not in REGISTRY:
        check_configs(folder, files, where)
        read_ahead([whole(folder / name) for name in files.weights])
    load = partial(load_component, folder, files, dtype, where)
    return ControlNet(source or folder.name, REGISTRY.get(key, load))


def _as_union(folder: Path, files: ComponentFiles, where: str) -> ComponentFiles:
    """A ControlNet Union has the class and the number of modes that its tensors tell; xinsir's own config names ``ControlNetModel``."""
    headers = (read_header(folder / name, f"{where}: {name}") for name in files.weights)
    modes = max(control_types_of(header.shapes) for header in headers)
    if not modes:
        return files
    numbers = (("num_control_type", modes),)
    return replace(files, classes=CONTROLNET_UNION, class_name=CONTROLNET_UNION.names[0], numbers=numbers)


def load_controlnet_from_hub(
    repo_id: str,
    *,
    revision: str = "",
    subfolder: str = "",
    variant: str = "auto",
    dtype: torch.dtype,
    monitor: Monitor,
) -> ControlNet:
    """:func:`.hub.fetch_repo`, then :func:`load_controlnet_folder`."""
    folder = fetch_repo(
        repo_id,
        revision=revision,
        subfolder=subfolder,
        variant=variant,
        dtype=dtype,
        monitor=monitor,
        kind=CONTROLNET_REPO,
    )
    title = title_of(repo_id, subfolder)
    return load_controlnet_folder(folder, dtype=dtype, variant=variant, source=title, monitor=monitor)


def files_in(folder: Path) -> list[str]:
    """The names of all files directly in ``folder``. Dangling links are left out."""
    return [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _plan(
    folder: Path, names: Collection[str], variant: str, dtype: torch.dtype, where: str
) -> tuple[ComponentFiles, ...]:
    classes = _classes_of(folder, where)
    return (plan_single_component("controlnet", classes, names, variant=variant, dtype=dtype, where=where),)


def _classes_of(folder: Path, where: str) -> Classes:
    """The class that the ControlNet's config names, as the families that use it have it."""
    try:
        config = read_json_object(folder / CONFIG_OF_MODEL, f"{where}: {CONFIG_OF_MODEL}")
    except (FileNotFoundError, NotADirectoryError):
        raise RelayError(
            f"{where} has no {CONFIG_OF_MODEL}, so it is not a ControlNet in the diffusers format. Choose the folder that contains "
            f"{CONFIG_OF_MODEL} and the weights."
        ) from None
    class_name = config.get("_class_name")
    known = controlnet_classes()
    classes = next((one for one in known if one.named(one.library, class_name)), None)
    if classes is None:
        names = ", ".join(repr(name) for one in known for name in one.names)
        raise RelayError(
            f"{where} is not a ControlNet of a family that can use one ({titles_of(lambda family: family.controlnet is not None)}): the class in "
            f"its {CONFIG_OF_MODEL} is {short(class_name)}, and only {names} can be loaded here. Choose another one."
        )
    return classes


CONTROLNET_REPO = RepoKind(
    CONFIG_OF_MODEL,
    _plan,
    files_in,
    "so it is not a ControlNet in the diffusers format. Look on the hub for a repo with config.json at its top level. To load a "
    "complete model, use Load Diffusers Model from Hub.",
    "or put the ControlNet's folder under models/controlnet and use Load ControlNet (Diffusers)",
)
