"""Turns rows into jobs, and a plan into what all of its jobs share."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .columns import PictureFile
from .jobs import InputPicture, Job, RunSpec
from .manifest import fingerprint
from .node_table import NodeTable
from .plan import Plan, recorded_values
from .rows import Column, Row
from .ui_convert import Prompt


def run_spec(plan: Plan, nodes: NodeTable, store: str, attempts: int, row_timeout: float) -> RunSpec:
    id = uuid.uuid5(uuid.NAMESPACE_URL, fingerprint(asdict(plan.manifest)))
    return RunSpec(
        str(id), store, plan.manifest.prompt, saving_nodes(plan.manifest.prompt, nodes), attempts, row_timeout
    )


def saving_nodes(prompt: Prompt, nodes: NodeTable) -> tuple[str, ...]:
    """Ids of the nodes that have a filename_prefix."""
    found = []
    for id, node in prompt.items():
        type = nodes.get(node["class_type"])
        if type is not None and type.input("filename_prefix") is not None:
            found.append(id)
    return tuple(found)


def job_of(row: Row, columns: Sequence[Column]) -> Job:
    inputs: list[tuple[str, str, Any]] = []
    pictures: list[InputPicture] = []
    for column in columns:
        value, targets = row.values[column.address], column.setting.targets
        if isinstance(value, PictureFile):
            pictures.append(InputPicture(targets, str(value.path.resolve())))
        else:
            inputs += [(id, input, value) for id, input in targets]
    return Job(row.index, _values(row), tuple(inputs), tuple(pictures))


def _values(row: Row) -> dict[str, Any]:
    try:
        return recorded_values(row)
    except OSError:  # a picture has gone since the plan: the worker says so
        return {
            address: value.name if isinstance(value, PictureFile) else value for address, value in row.values.items()
        }
