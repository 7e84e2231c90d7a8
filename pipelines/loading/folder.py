"""Loads a diffusers folder as PipelineComponents. Each component is read once and shared."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError, in_a_line
from ..base.monitor import Monitor
from ..files.component_files import MODEL_INDEX, ComponentFiles, MissingFiles
from ..files.config_files import read_json_object
from ..files.model_files import HOW_TO_CONVERT, plan_files, short
from ..files.read_ahead import read_ahead, whole
from ..files.registry import REGISTRY, component_key
from ..files.safetensors import check_file
from ..model.components import PipelineComponents
from ..model.family import ModelFamily
from ..model.family_lookup import recognise
from .component_building import build, read_config
from .together import check_noise_level, fitted_together

if TYPE_CHECKING:
    import torch

MOST_NOISE_LEVEL = 10_000

logger = logging.getLogger(__name__)


def load_folder(
    folder: Path, *, dtype: torch.dtype, variant: str = "auto", source: str | None = None, monitor: Monitor
) -> PipelineComponents:
    """Loads the components of the model's family. Components that are already in memory are shared, not read again.

    The files are checked as far as possible before anything is loaded. Modules are in ``dtype``, on the CPU, in evaluation
    mode, without gradients. Weights whose file is in ``dtype`` are memory-mapped: their pages are read when they are used,
    or earlier by :mod:`.read_ahead`, and only pages that are written to are copied.

    Args:
        folder: a folder with model_index.json.
        variant: see :func:`.model_files.plan_files`.
        source: the model's name in messages and the log; the folder's path if None.

    Raises:
        RelayError: the folder is not a model that the pack runs, is incomplete or damaged, or only has pickles.
    """
    where = source or str(folder)
    model_index = read_model_index(folder, where)
    family = recognise(model_index, where)
    config = _flags(model_index, family, where)
    try:
        plan = plan_files(model_index, family, names_in(folder), variant=variant, dtype=dtype, where=where)
    except MissingFiles as error:
        raise MissingFiles(f"{error} The model is not complete: download or save it again.") from None
    for files in plan:
        check_weights(folder, files, where)
    keys = {files.name: component_key(folder, files, dtype) for files in plan}
    new = [files for files in plan if keys[files.name] not in REGISTRY]
    for files in new:
        check_configs(folder, files, where)
    new.sort(key=lambda files: files.name == family.denoiser)  # last, because a run uses it last
    read_ahead([whole(folder / name) for files in new for name in files.weights])
    modules = {}
    for files in plan:
        monitor.check()
        load = partial(load_component, folder, files, dtype, where)
        modules[files.name] = REGISTRY.get(keys[files.name], load)
    modules = fitted_together(family, modules, where)
    if "low_res_scheduler" in modules:
        check_noise_level(modules, config.get("max_noise_level"), where)
    return PipelineComponents(family=family, source=source or folder.name, modules=modules, dtype=dtype, config=config)


def _flags(model_index: Mapping[str, Any], family: ModelFamily, where: str) -> dict[str, object]:
    """The entries of model_index.json that change results."""
    found = {name: model_index[name] for name in family.config_flags if name in model_index}
    for name, value in found.items():
        if isinstance(family.config_flags[name], bool):
            valid, allowed = isinstance(value, bool), "true or false"
        else:
            valid, allowed = type(value) is int and 0 <= value <= MOST_NOISE_LEVEL, f"0 to {MOST_NOISE_LEVEL}"
        if not valid:
            raise RelayError(
                f"{where}: {name} in {MODEL_INDEX} is {short(value)}, but must be {allowed} in a {family.title} model. "
                f"Download the file again."
            )
    return found


def read_model_index(folder: Path, where: str) -> Mapping[str, Any]:
    """model_index.json of ``folder``.

    Raises:
        RelayError: it is missing, is not a JSON object, or names a custom pipeline class.
    """
    try:
        model_index = read_json_object(folder / MODEL_INDEX, f"{where}: {MODEL_INDEX}")
    except (FileNotFoundError, NotADirectoryError):
        raise RelayError(
            f"{where} has no {MODEL_INDEX}, so it is not a diffusers model. Choose the folder that contains {MODEL_INDEX} "
            f"and the folders unet, vae and so on."
        ) from None
    if isinstance(model_index.get("_class_name"), list):
        raise RelayError(
            f"{where} has a custom pipeline class ({short(model_index['_class_name'])}). Diffusers Relay does not run code from "
            f"models: use a model with one of diffusers' classes."
        )
    return model_index


def names_in(folder: Path) -> list[str]:
    """The files in the component folders of ``folder``: ``"unet/config.json"`` and so on. Dangling links are left out."""
    return [
        f"{component.name}/{file.name}"
        for component in folder.iterdir()
        if component.is_dir()
        for file in component.iterdir()
        if file.is_file()
    ]


def check_weights(folder: Path, files: ComponentFiles, where: str) -> None:
    """
    Raises:
        RelayError: a weights file is damaged or not a safetensors file, or the shards don't match their index.
    """
    for name in files.weights:
        check_file(folder / name, f"{where}: {name}", HOW_TO_CONVERT)
    if files.shard_index is not None:
        title = f"{where}: {files.shard_index}"
        index = read_json_object(folder / files.shard_index, title).get("weight_map")
        if not isinstance(index, dict) or not all(isinstance(shard, str) for shard in index.values()):
            raise RelayError(f"{title} is damaged (it has no weight_map): download it again.")
        if set(index.values()) != {name.rpartition("/")[2] for name in files.weights}:
            raise RelayError(f"{title} does not match the shards in its folder. Download both again.")


def check_configs(folder: Path, files: ComponentFiles, where: str) -> None:
    """
    Raises:
        RelayError: a config or vocabulary is damaged, or contains values that no model has.
    """
    read_config(folder, files, where)


def _reason(error: BaseException) -> str:
    """The reason of a disk error, if there is one, otherwise the text of ``error``. The libraries hide it behind advice and full paths.

    A missing file does not count: the libraries look for many optional files.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno not in (None, errno.ENOENT):
            return f"{cause.strerror}. Check that its disk or network drive is connected, and run again"
        cause = cause.__cause__ or cause.__context__
    return in_a_line(error)


def load_component(folder: Path, files: ComponentFiles, dtype: torch.dtype, where: str) -> Any:
    """Loads one component, like diffusers' own pipeline loader. The registry calls it if the component is not in memory.

    Raises:
        RelayError: the installed library has no such class, or the component can't be built from the files.
    """
    import torch

    started = time.perf_counter()
    # The host runs nodes in inference mode. Weights created in it remain inference tensors: a LoRA can't be fused into
    # them, and outside inference mode they can't be used with gradients or changed in place.
    with torch.inference_mode(False):
        try:
            component = build(folder, files, dtype, where)
        except (RelayError, MemoryError):
            raise
        except Exception as error:
            raise RelayError(
                f"{where}: could not load its {files.name} ({files.class_name}): {_reason(error)}"
            ) from error
    logger.info("loaded %s of %s in %.2f s", files.name, where, time.perf_counter() - started)
    return component
