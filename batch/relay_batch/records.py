"""The record of a row: written after its pictures, it alone says that the row is done."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import BadOutput
from .store import Store

RECORDS, PICTURES = "records", "pictures"
DONE, FAILED = "done", "failed"
NAME = re.compile(rf"{RECORDS}/\d+/(\d+)\.({DONE}|{FAILED})\.json")
IN_A_FOLDER = 1000
HASH_IN_NAME = 12


@dataclass(frozen=True)
class SavedPicture:
    """A picture of a row, in the store. `node` is the id of the node that saved it."""

    name: str
    node: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """How a row ended. A failed row has an `error` and no pictures."""

    index: int
    outcome: str
    pictures: tuple[SavedPicture, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    attempts: int = 1
    seconds: float = 0.0


def key_of(index: int) -> str:
    """A row's key: the beginning of its files' names."""
    return f"{index:07}"


def record_name(index: int, outcome: str) -> str:
    """The outcome is in the name, so that counting needs no reading."""
    return f"{RECORDS}/{index // IN_A_FOLDER:04}/{key_of(index)}.{outcome}.json"


def publish_done(
    store: Store,
    index: int,
    pictures: Sequence[tuple[str, bytes, str]],
    values: Mapping[str, Any],
    attempts: int = 1,
    seconds: float = 0.0,
) -> Record:
    """Writes a row's pictures, and then its record. If the row has a record already, that one counts, and is returned.

    Args:
        pictures: (node id, file's content, suffix such as ".png"), in order.
    """
    if not pictures:
        raise ValueError(f"row {index} has no pictures: it has failed")
    saved = tuple(_save(store, index, node, data, suffix) for node, data, suffix in pictures)
    record = Record(index, DONE, saved, values, attempts=attempts, seconds=seconds)
    if store.write_new(record_name(index, DONE), _as_json(record)):
        store.remove(record_name(index, FAILED))  # of an earlier try
        return record
    first = read_record(store, index, DONE)
    for name in {one.name for one in saved} - {one.name for one in first.pictures}:
        store.remove(name)
    return first


def publish_failed(
    store: Store, index: int, error: str, values: Mapping[str, Any], attempts: int = 1, seconds: float = 0.0
) -> Record:
    record = Record(index, FAILED, (), values, error, attempts, seconds)
    store.replace(record_name(index, FAILED), _as_json(record))
    return record


def _save(store: Store, index: int, node: str, data: bytes, suffix: str) -> SavedPicture:
    """A picture's name contains its hash: a worker that comes late can't put another picture in its place."""
    digest = hashlib.sha256(data).hexdigest()
    name = f"{PICTURES}/{index // IN_A_FOLDER:04}/{key_of(index)}-{digest[:HASH_IN_NAME]}{suffix}"
    store.write_new(name, data)
    return SavedPicture(name, node, len(data), digest)


def _as_json(record: Record) -> bytes:
    return (json.dumps(asdict(record), ensure_ascii=False, indent=1) + "\n").encode()


def read_record(store: Store, index: int, outcome: str) -> Record:
    name = record_name(index, outcome)
    try:
        raw = json.loads(store.read(name))
        pictures = tuple(SavedPicture(**one) for one in raw.pop("pictures"))
        return Record(**raw, pictures=pictures)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadOutput(f"The record {name} is damaged ({error}). Remove it, and its row runs again.") from error


def find_record(store: Store, index: int, outcome: str) -> Record | None:
    """None if there is no such record."""
    try:
        return read_record(store, index, outcome)
    except FileNotFoundError:
        return None


def outcomes(store: Store) -> Iterator[tuple[int, str]]:
    """(row, outcome) of each record. A row that failed first and is done now may be named twice."""
    for name in store.names(RECORDS):
        found = NAME.fullmatch(name)
        if found is None:
            raise BadOutput(f"{name} is not a record. Nothing else may be in the folder {RECORDS}.")
        yield int(found[1]), found[2]
