"""What a run is: the workflow, the table and the models. An output folder belongs to one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from .errors import BadOutput
from .store import Store
from .ui_convert import Prompt

NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    prompt: Prompt
    """The workflow in API format."""
    bindings: Sequence[str]
    """Each ADDRESS=SOURCE, as given."""
    product: bool
    rows: int
    table: str
    """The SHA-256 of all rows' values."""
    models: Mapping[str, str] | None
    """{file in the models' folder: its fingerprint}; None if the folder was not named."""
    planned: str
    """When, in ISO format: %date% in file names stands for it, however often the run goes on."""
    format: int = FORMAT


def fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_manifest(store: Store) -> Manifest | None:
    """None if the store has no run."""
    try:
        raw = json.loads(store.read(NAME))
        if raw.get("format") != FORMAT:
            raise BadOutput(
                f"{NAME} has the format {raw.get('format')}, and this relay-batch reads {FORMAT}. Use the other version."
            )
        datetime.fromisoformat(raw["planned"])
        return Manifest(**raw)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadOutput(f"{NAME} in the output folder is damaged ({error}). Use a new output folder.") from error


def write_manifest(store: Store, manifest: Manifest) -> Manifest:
    """Writes the manifest of a new run, or checks that the run there is the same. Returns the one that is in force."""
    data = json.dumps(asdict(manifest), ensure_ascii=False, indent=1) + "\n"
    if store.write_new(NAME, data.encode()):
        return manifest
    there = read_manifest(store)
    assert there is not None
    changed = changes(there, manifest)
    if changed:
        raise BadOutput(f"The output folder belongs to another run: {'; '.join(changed)}. Use a new output folder.")
    return there


def changes(old: Manifest, new: Manifest) -> list[str]:
    """What differs between two runs, in words."""
    found = []
    if old.prompt != new.prompt:
        found.append(f"the workflow has changed ({_changed_inputs(old.prompt, new.prompt)})")
    if old.rows != new.rows:
        found.append(f"the table had {old.rows} rows and has {new.rows}")
    elif old.table != new.table:
        found.append("the table's values have changed")
    if old.models is not None and new.models is not None and old.models != new.models:
        names = sorted(set(old.models.items()) ^ set(new.models.items()))
        found.append(f"model files have changed ({', '.join(dict.fromkeys(name for name, _ in names))})")
    return found


def _changed_inputs(old: Prompt, new: Prompt) -> str:
    ids = [id for id in {**old, **new} if old.get(id) != new.get(id)]
    both = [id for id in ids if id in old and id in new]
    names = [
        f"{id}.{name}"
        for id in both
        for name in {**old[id]["inputs"], **new[id]["inputs"]}
        if old[id]["inputs"].get(name) != new[id]["inputs"].get(name)
    ]
    return ", ".join([*names, *(f"node {id}" for id in ids if id not in both)][:8]) or f"node {ids[0]}"
