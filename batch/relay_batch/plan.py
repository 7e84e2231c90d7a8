"""Plans a run: reads the workflow, checks every row, and writes the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .addresses import Settings
from .bindings import read_bindings
from .columns import PictureFile
from .errors import BadOutput, BadTable
from .manifest import Manifest, read_manifest, write_manifest
from .models import model_fingerprints
from .node_table import NodeTable
from .rows import Row, RowTable
from .store import Store
from .workflow_file import Workflow, read_workflow


@dataclass(frozen=True)
class Request:
    """What the user asks for, as it is written on the command line."""

    workflow: Path
    sets: Sequence[str] = ()
    images: Sequence[str] = ()
    product: bool = False
    comfyui: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A run that can begin, or go on."""

    workflow: Workflow
    table: RowTable
    manifest: Manifest


def make_plan(request: Request, nodes: NodeTable, store: Store) -> Plan:
    """Checks everything that can be known before the first row. Raises a BatchError, and then writes nothing."""
    there = read_manifest(store)
    try:
        return _planned(request, nodes, store, there)
    except BadOutput:
        if there is not None or (there := read_manifest(store)) is None:
            raise
        return _planned(request, nodes, store, there)  # another driver was faster, and its time counts


def _planned(request: Request, nodes: NodeTable, store: Store, there: Manifest | None) -> Plan:
    now = datetime.now().astimezone() if there is None else datetime.fromisoformat(there.planned)
    workflow = read_workflow(request.workflow, nodes, now)
    table = read_bindings(Settings(workflow, nodes), request.sets, request.images, request.product)
    models = None if request.comfyui is None else model_fingerprints(request.comfyui, workflow.prompt)
    count, digest = count_and_hash(table)
    if count == 0:
        raise BadTable("The table has no rows.")
    bindings = [column.text for column in table.columns]
    manifest = Manifest(workflow.prompt, bindings, request.product, count, digest, models, now.isoformat())
    return Plan(workflow, table, write_manifest(store, manifest))


def count_and_hash(table: RowTable) -> tuple[int, str]:
    """The number of rows, and the SHA-256 of their values. Reads every row, and keeps none."""
    digest, count = hashlib.sha256(), 0
    for row in table.rows():
        for value in row.values.values():
            if isinstance(value, PictureFile) and not value.path.is_file():
                raise BadTable(f"Row {row.index + 1}: there is no picture {value.path}.")
        digest.update(json.dumps(recorded_values(row), sort_keys=True, ensure_ascii=False).encode() + b"\n")
        count += 1
    return count, digest.hexdigest()


def recorded_values(row: Row) -> dict[str, Any]:
    """A row's values as they stand in its record: a picture is its name and its size, wherever its folder is."""
    return {address: _recorded(value) for address, value in row.values.items()}


def _recorded(value: Any) -> Any:
    if isinstance(value, PictureFile):
        return {"picture": value.name, "size": value.path.stat().st_size}
    return value
