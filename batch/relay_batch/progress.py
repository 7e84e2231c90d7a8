"""How far a run is, and whether its output is what its records say: read from the output folder alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import BadOutput
from .manifest import Manifest, read_manifest
from .records import DONE, FAILED, PICTURES, Record, SavedPicture, outcomes, read_record, record_name
from .store import Store

NOT_YET, IS_DONE, HAS_FAILED = 0, 1, 2


@dataclass(frozen=True)
class Progress:
    """One byte a row: NOT_YET, IS_DONE or HAS_FAILED."""

    states: bytearray

    @property
    def rows(self) -> int:
        return len(self.states)

    @property
    def done(self) -> int:
        return self.states.count(IS_DONE)

    @property
    def failed(self) -> int:
        return self.states.count(HAS_FAILED)

    @property
    def left(self) -> int:
        return self.states.count(NOT_YET)

    def indexes(self, state: int) -> Iterator[int]:
        at = self.states.find(state)
        while at >= 0:
            yield at
            at = self.states.find(state, at + 1)


def manifest_of(store: Store) -> Manifest:
    found = read_manifest(store)
    if found is None:
        raise BadOutput("The output folder has no run: there is no manifest.json. Begin with `relay-batch plan`.")
    return found


def progress(store: Store, rows: int) -> Progress:
    """Reads only the records' names."""
    states = bytearray(rows)
    for index, outcome in outcomes(store):
        if index >= rows:
            raise BadOutput(f"{record_name(index, outcome)} is of row {index + 1}, but the run has {rows} rows.")
        if outcome == DONE:
            states[index] = IS_DONE
        elif states[index] == NOT_YET:
            states[index] = HAS_FAILED
    return Progress(states)


def failures(store: Store, found: Progress) -> Iterator[Record]:
    """The records of the rows that failed."""
    return (read_record(store, index, FAILED) for index in found.indexes(HAS_FAILED))


def faults(store: Store, rows: int) -> Iterator[str]:
    """Every way in which the output is not what its records say, a line each. Reads all pictures."""
    recorded: dict[str, int] = {}
    for index in progress(store, rows).indexes(IS_DONE):
        try:
            record = read_record(store, index, DONE)
        except BadOutput as error:
            yield str(error)
            continue
        if record.index != index or not record.pictures:
            yield f"{record_name(index, DONE)} is the record of another row, or has no pictures"
        for picture in record.pictures:
            if recorded.setdefault(picture.name, index) != index:
                yield f"{picture.name}: two records name it"
            yield from _faults_of(store, picture)
    for name in store.names(PICTURES):
        if name not in recorded:
            yield f"{name}: no record names it"


def _faults_of(store: Store, picture: SavedPicture) -> Iterator[str]:
    try:
        data = store.read(picture.name)
    except FileNotFoundError:
        yield f"{picture.name}: is missing"
        return
    if len(data) != picture.size:
        yield f"{picture.name}: has {len(data)} bytes, and its record says {picture.size}"
    elif hashlib.sha256(data).hexdigest() != picture.sha256:
        yield f"{picture.name}: its content is not what its record says"
