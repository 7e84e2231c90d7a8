"""One checkpoint file of the original layout -> PipelineComponents, with the pack's own configs and no network.

diffusers converts: ``from_single_file`` of each component, given its own tensors and a folder of configs.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .block_layout import original_numbers
from .checkpoint_kinds import UNET, VAE, CheckpointKind, kind_of
from .components import PipelineComponents
from .errors import RelayError
from .family import recognise
from .loading import read_model_index
from .monitor import Monitor
from .prediction import prediction_of
from .read_ahead import read_ahead
from .registry import REGISTRY, content_digest, file_identity
from .safetensors_file import HOW_TO_CONVERT_FILE, SAFE_SUFFIXES, Header, read_header, read_tensors, tensor_spans

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).parent / "configs"
"""A folder for each kind, laid out as a diffusers model without weights and vocabularies."""
TEXT_ENCODERS = {
    (CheckpointKind.SD15, "text_encoder"): ("cond_stage_model.transformer.",),
    (CheckpointKind.SD2, "text_encoder"): ("cond_stage_model.model.", "conditioner.embedders.0.model."),
    (CheckpointKind.SDXL, "text_encoder"): ("conditioner.embedders.0.transformer.",),
    (CheckpointKind.SDXL, "text_encoder_2"): ("conditioner.embedders.1.model.",),
    (CheckpointKind.SDXL_REFINER, "text_encoder_2"): ("conditioner.embedders.0.model.",),
}
"""Where a text encoder's keys begin; diffusers knows it under the first."""


@dataclass(frozen=True)
class Part:
    """One component of a file: its class and config, and which of the file's tensors are its own."""

    name: str
    library: str
    class_name: str
    config: Path
    """The folder with its config.json."""
    rename: Callable[[str], str | None]
    """A key of the file -> the key that diffusers is given; None: not of this component."""
    numbers: Mapping[str, Any]
    """What the file's shapes say instead of the config."""


def load_checkpoint(
    path: Path,
    *,
    dtype: torch.dtype,
    tokenizer: Path,
    source: str | None = None,
    monitor: Monitor,
    configs: Path = CONFIGS,
) -> PipelineComponents:
    """Loads a Stable Diffusion 1.x, 2.x, SDXL base or refiner file, an inpainting one too (``unet.config.in_channels`` is 9).

    The kind comes from the header. Only the tensors of the components are read, and they are cast as they are read.
    Modules come in ``dtype``, on the CPU, in evaluation mode, without gradients, and are shared like those of a folder.

    Args:
        tokenizer: a folder with CLIP's vocab.json and merges.txt, which no checkpoint holds.
        source: what messages and the log call the model; the file's name, if None.
        configs: the folder of :data:`CONFIGS`.

    Raises:
        RelayError: it is a pickle, damaged, or of another kind, which the message names.
    """
    where = source or path.name
    header = check_file(path, where)
    kind = kind_of(header, where)
    folder = configs / kind.value
    model_index = read_model_index(folder, where)
    family = recognise(model_index, where)
    parts = {
        name: _part(name, model_index[name], folder / name, kind, header, where)
        for name in sorted(family.components, key=lambda name: (name == family.denoiser, name))
        if name != "scheduler" and not name.startswith("tokenizer")
    }
    read_parts_ahead(path, list(parts.values()), dtype)
    modules: dict[str, Any] = {}
    for name in sorted(family.components):
        monitor.check()
        if name == "scheduler":
            modules[name] = _scheduler(folder, model_index[name][1], prediction_of(path, header, kind))
        elif name.startswith("tokenizer"):
            modules[name] = _tokenizer(tokenizer, folder / name, where)
        else:
            modules[name] = load_part(path, parts[name], dtype, where)
    config = {name: model_index.get(name, default) for name, default in family.config_flags.items()}
    return PipelineComponents(family=family, source=where, modules=modules, dtype=dtype, config=config)


def check_file(path: Path, where: str) -> Header:
    """The header of a file that may be loaded.

    Raises:
        RelayError: it is gone, a pickle by its name or its content, or damaged.
    """
    check_name(path, where)
    if not path.is_file():
        raise RelayError(f"{where} is no file any more. Refresh the node list (key R), and choose one that is there.")
    return read_header(path, where)


def check_name(path: Path, where: str) -> None:
    """Refuses a file whose name says that it is no safetensors file."""
    if not path.name.lower().endswith(SAFE_SUFFIXES):
        raise RelayError(f"{where} is not a .safetensors file. {HOW_TO_CONVERT_FILE}.")


def read_parts_ahead(path: Path, parts: Sequence[Part], dtype: torch.dtype) -> None:
    """Sends those that nobody holds yet on their way from the disk, in their order; the rest of the file stays there."""
    new = [part for part in parts if _key(path, part, dtype) not in REGISTRY]
    read_ahead([span for part in new for span in tensor_spans(path, part.rename)])


def load_part(path: Path, part: Part, dtype: torch.dtype, where: str) -> Any:
    """One component of a file; one that another model holds is shared, not read again."""
    return REGISTRY.get(_key(path, part, dtype), partial(_load, path, part, dtype, where))


def _key(path: Path, part: Part, dtype: torch.dtype) -> Hashable:
    return (
        "file",
        *(part.name, part.library, part.class_name),
        *(content_digest(part.config, ["config.json"]), json.dumps(part.numbers, sort_keys=True)),
        *(file_identity(path), dtype),
    )


def prefixed(*starts: str, to: str | None = None) -> Callable[[str], str | None]:
    """Takes the keys that begin with one of ``starts``; with ``to``, that beginning becomes ``to``."""

    def rename(key: str) -> str | None:
        for start in starts:
            if key.startswith(start):
                return key if to is None else to + key.removeprefix(start)
        return None

    return rename


def without_prefix(header: Header, start: str) -> dict[str, tuple[int, ...]]:
    """The shapes below ``start``, by the rest of their keys."""
    return {key.removeprefix(start): shape for key, shape in header.shapes.items() if key.startswith(start)}


def _part(name: str, declared: tuple[str, str], config: Path, kind: CheckpointKind, header: Header, where: str) -> Part:
    numbers: dict[str, Any] = {}
    if name == "unet":
        rename = prefixed(UNET)
        its_config = json.loads((config / "config.json").read_text("utf-8"))
        numbers = original_numbers(without_prefix(header, UNET), its_config, where)
    elif name == "vae":
        rename = prefixed(VAE)
    else:
        starts = TEXT_ENCODERS[kind, name]
        rename = _clip_keys(starts[0]) if starts[0].endswith("transformer.") else prefixed(*starts, to=starts[0])
    return Part(name, *declared, config, rename, numbers)


def _clip_keys(start: str) -> Callable[[str], str | None]:
    """CLIP's text model; early files have no ``text_model`` in its keys, and position_ids is no weight."""

    def rename(key: str) -> str | None:
        if not key.startswith(start) or key.endswith(".position_ids"):
            return None
        rest = key.removeprefix(start)
        return start + (rest if rest.startswith(("text_model.", "text_projection.")) else f"text_model.{rest}")

    return rename


def _load(path: Path, part: Part, dtype: torch.dtype, where: str) -> Any:
    import torch

    started = time.perf_counter()
    # As for a folder: weights made in the host's inference mode would stay inference tensors for ever.
    with torch.inference_mode(False):
        try:
            tensors = read_tensors(path, part.rename, dtype)
            module = _convert(part, tensors, dtype)
        except (RelayError, MemoryError):
            raise
        except NotImplementedError as error:  # diffusers moves the module, a part of which was given no data
            raise RelayError(_incomplete(part, where)) from error
        except Exception as error:
            raise RelayError(f"{where}: could not load its {part.name} ({part.class_name}): {error}") from error
    _check_complete(module, part, len(tensors), where)
    logger.info("loaded %s of %s in %.2f s", part.name, where, time.perf_counter() - started)
    return module.eval().requires_grad_(False)


def _convert(part: Part, tensors: dict[str, Any], dtype: torch.dtype) -> Any:
    import importlib

    component_class = getattr(importlib.import_module(part.library), part.class_name)
    folder, subfolder = str(part.config.parent), part.config.name
    if part.library == "diffusers":
        return component_class.from_single_file(
            tensors, config=folder, subfolder=subfolder, torch_dtype=dtype, local_files_only=True, **part.numbers
        )
    # What StableDiffusionPipeline.from_single_file calls for a text encoder; that one takes a whole file only, and would
    # tell SDXL's two text encoders apart by their widths.
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

    return create_diffusers_clip_model_from_ldm(
        component_class,
        checkpoint=tensors,
        config=folder,
        subfolder=subfolder,
        torch_dtype=dtype,
        local_files_only=True,
    )


def _check_complete(module: Any, part: Part, given: int, where: str) -> None:
    """diffusers leaves tensors that it was not given without data, and drops those that have no place, with a warning."""
    state = module.state_dict()
    if any(value.is_meta for value in state.values()):
        raise RelayError(_incomplete(part, where))
    if part.name in ("unet", "controlnet") and len(state) != given:
        raise RelayError(
            f"{where}: its {part.name} has {given} tensors, and a {part.class_name} of its kind has {len(state)}. "
            f"It is a variant that diffusers cannot load from one file: save it as a diffusers folder."
        )


def _incomplete(part: Part, where: str) -> str:
    return (
        f"{where}: the weights of its {part.name} are not complete: tensors are missing that a {part.class_name} of its kind has. "
        f"Download the file anew, or take another one of the same model."
    )


def _scheduler(folder: Path, class_name: str, changes: Mapping[str, Any]) -> Any:
    import inspect

    import diffusers

    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    scheduler_class = getattr(diffusers, class_name)
    if not set(changes) <= set(inspect.signature(scheduler_class.__init__).parameters):
        scheduler_class = diffusers.DDIMScheduler  # PNDM knows no zero SNR, and would say nothing
    return scheduler_class.from_config({**config, **changes})


def _tokenizer(vocabulary: Path, settings: Path, where: str) -> Any:
    """CLIP's tokenizer with the length and the padding of the kind, whatever is written beside the vocabulary."""
    from transformers import CLIPTokenizer

    names = ["vocab.json", "merges.txt"]
    if not all((vocabulary / name).is_file() for name in names):
        raise RelayError(
            f"{where}: CLIP's vocabulary ({', '.join(names)}) is not where ComfyUI has it, in its folder comfy/sd1_tokenizer. Repair the installation."
        )
    config = json.loads((settings / "tokenizer_config.json").read_text("utf-8"))
    wanted = {"model_max_length": int(config["model_max_length"]), "pad_token": str(config["pad_token"])}

    def load() -> Any:
        return CLIPTokenizer.from_pretrained(str(vocabulary), local_files_only=True, **wanted)  # nosec B615

    return REGISTRY.get(("tokenizer", content_digest(vocabulary, names), *wanted.values()), load)
