"""Loads a complete model from the hub as PipelineComponents."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.monitor import Monitor
from ..downloads.hub import RepoKind, fetch_repo, title_of
from ..files.component_files import MODEL_INDEX, ComponentFiles
from ..files.model_files import plan_files
from ..model.components import PipelineComponents
from ..model.family_lookup import recognise
from .folder import load_folder, names_in, read_model_index

if TYPE_CHECKING:
    import torch


def _plan_pipeline(
    folder: Path, names: Collection[str], variant: str, dtype: torch.dtype, title: str
) -> tuple[ComponentFiles, ...]:
    model_index = read_model_index(folder, title)
    family = recognise(model_index, title)
    return plan_files(model_index, family, names, variant=variant, dtype=dtype, where=title)


PIPELINE = RepoKind(
    MODEL_INDEX,
    _plan_pipeline,
    names_in,
    "so it is not a diffusers model. Look on the hub for a repo of the model in the diffusers format. Put a single checkpoint file "
    "into models/checkpoints.",
)


def load_from_hub(
    repo_id: str,
    *,
    revision: str = "",
    subfolder: str = "",
    variant: str = "auto",
    dtype: torch.dtype,
    monitor: Monitor,
) -> PipelineComponents:
    """:func:`~..downloads.hub.fetch_repo`, then :func:`.folder.load_folder`."""
    folder = fetch_repo(
        repo_id, revision=revision, subfolder=subfolder, variant=variant, dtype=dtype, monitor=monitor, kind=PIPELINE
    )
    title = title_of(repo_id, subfolder)
    return load_folder(folder, dtype=dtype, variant=variant, source=title, monitor=monitor)
