"""Loads an IP-Adapter from a hub repository with the layout of h94/IP-Adapter: files, and image encoders in folders beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters.ip_adapter_kinds import AdapterKind
from ..adapters.ip_adapter_values import IpAdapter
from ..base.errors import RelayError
from ..base.monitor import Monitor
from ..downloads.hub import RepoKind, fetch_repo
from ..files.component_files import CONFIG_OF_MODEL, ComponentFiles, MissingFiles
from ..model.component_classes import IP_ADAPTER
from .file_part import check_name
from .image_encoder import load_planned_encoder, plan_encoder, read_encoder_config
from .ip_adapter import combined, needed_encoder, read_kind

if TYPE_CHECKING:
    import torch

ENCODER_FOLDER = "image_encoder"
OR_A_FILE = "or put the IP-Adapter into models/ipadapter and its image encoder into models/clip_vision, and use Load IP-Adapter (Diffusers)"


def load_ip_adapter_from_hub(
    repo_id: str, file: str, *, revision: str = "", dtype: torch.dtype, monitor: Monitor
) -> IpAdapter:
    """Downloads an IP-Adapter and the one image encoder of the repository that fits it, and loads both.

    Args:
        file: its name in the repository, with ``/``.
        dtype: of the weights in memory; must be the model's.

    Raises:
        RelayError: as :func:`.hub.fetch_repo` and :func:`.ip_adapter.load_ip_adapter`, or no image encoder of the repository fits.
    """
    check_name(Path(file), f"file: {file}")
    fetch = partial(fetch_repo, repo_id, revision=revision, dtype=dtype, monitor=monitor)
    index = _at(file.rpartition("/")[0], f"{ENCODER_FOLDER}/{CONFIG_OF_MODEL}")
    folder = fetch(kind=_kind(index, partial(_plan_adapter, file)))
    where = f"{repo_id}: {file}"
    header, kind = read_kind(folder / file, where)
    encoder = _fitting_encoder(folder, kind, where)
    folder = fetch(kind=_kind(_at(encoder, CONFIG_OF_MODEL), partial(_plan_in_folder, encoder)))
    (files,) = _plan_in_folder(encoder, folder, names_below(folder), "auto", dtype, repo_id)
    module = load_planned_encoder(folder, files, dtype, repo_id)
    return combined(folder / file, header, kind, module, dtype, where, encoder)


def _kind(index: str, plan: partial[tuple[ComponentFiles, ...]]) -> RepoKind:
    advice = "so it does not have the layout of h94/IP-Adapter. Use that repository, or a copy of it."
    return RepoKind(index, plan, names_below, advice, OR_A_FILE)


def names_below(folder: Path) -> list[str]:
    """The names of all files in ``folder`` and below, with ``/``. Dangling links are left out."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _at(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _encoder_folders(names: Collection[str]) -> list[str]:
    end = f"{ENCODER_FOLDER}/{CONFIG_OF_MODEL}"
    return sorted(name.rpartition("/")[0] for name in names if name == end or name.endswith(f"/{end}"))


def _plan_adapter(
    file: str, folder: Path, names: Collection[str], variant: str, dtype: torch.dtype, where: str
) -> tuple[ComponentFiles, ...]:
    """The IP-Adapter, and the configs of all image encoders, of which one fits it."""
    if file not in names:
        others = ", ".join(
            name for name in sorted(names) if name.endswith(".safetensors") and ENCODER_FOLDER not in name
        )
        raise MissingFiles(f"{where} has no {file}. It has: {others or 'no safetensors file'}.")
    configs = tuple(_at(name, CONFIG_OF_MODEL) for name in _encoder_folders(names))
    return (ComponentFiles("ip_adapter", IP_ADAPTER, "", configs, (file,)),)


def _fitting_encoder(folder: Path, kind: AdapterKind, where: str) -> str:
    """The folder of the first image encoder with the width that the IP-Adapter was made with."""
    width = "hidden_size" if kind.reads_layers else "projection_dim"
    found = {
        name: read_encoder_config(folder / name, f"{where}: {name}").get(width)
        for name in _encoder_folders(names_below(folder))
    }
    fitting = [name for name, value in found.items() if value == kind.width]
    if not fitting:
        have = ", ".join(f"{name} ({value})" for name, value in found.items())
        raise RelayError(f"{where} needs {needed_encoder(kind)}, but the repository only has: {have}. {OR_A_FILE[3:]}.")
    return fitting[0]


def _plan_in_folder(
    encoder: str, folder: Path, names: Collection[str], variant: str, dtype: torch.dtype, where: str
) -> tuple[ComponentFiles, ...]:
    """The files of the image encoder in the folder ``encoder`` of the repository."""
    inside = [name.removeprefix(f"{encoder}/") for name in names if name.startswith(f"{encoder}/")]
    files = plan_encoder([name for name in inside if "/" not in name], dtype, f"{where}: {encoder}")

    def placed(paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(_at(encoder, path) for path in paths)

    index = files.shard_index and _at(encoder, files.shard_index)
    return (
        replace(
            files, side_files=placed(files.side_files), weights=placed(files.weights), shard_index=index, folder=encoder
        ),
    )
