"""Before a run goes on: trusts the records alone, checks that their pictures are there, and removes what no record names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from .errors import BadOutput
from .locks import Shard
from .progress import IS_DONE, NOT_YET, Progress, progress
from .records import DONE, IN_A_FOLDER, PICTURES, Record, read_record, record_name
from .store import Store

READERS = 16
"""Records that are read at once: a store elsewhere answers slowly."""


def checked_progress(store: Store, rows: int, shard: Shard, say: Callable[[str], None]) -> Progress:
    """How far the run is, after a check of this shard's rows: a row whose record or pictures are not whole runs again.

    Pictures are compared by their size; `relay-batch verify` compares their content.
    """
    found = progress(store, rows)
    with ThreadPoolExecutor(READERS) as readers:
        for first in range(0, rows, IN_A_FOLDER):
            here = range(first, min(first + IN_A_FOLDER, rows))
            done = [index for index in here if found.states[index] == IS_DONE and shard.has(index)]
            sizes = dict(store.sizes(f"{PICTURES}/{first // IN_A_FOLDER:04}"))
            named: set[str] = set()
            for index, record in zip(done, readers.map(lambda index: _read(store, index), done)):
                fault = _fault(record, index, sizes)
                if fault is None:
                    assert isinstance(record, Record)
                    named.update(picture.name for picture in record.pictures)
                else:
                    say(f"Row {index + 1} runs again: {fault}")
                    store.remove(record_name(index, DONE))
                    found.states[index] = NOT_YET
            _remove(store, (name for name in sizes if name not in named and shard.has(_row_of(name))))
    return found


def _read(store: Store, index: int) -> Record | str:
    try:
        return read_record(store, index, DONE)
    except (BadOutput, FileNotFoundError) as error:
        return str(error)


def _fault(record: Record | str, index: int, sizes: dict[str, int]) -> str | None:
    if isinstance(record, str):
        return record
    if record.index != index or not record.pictures:
        return f"{record_name(index, DONE)} is the record of another row, or has no pictures."
    for picture in record.pictures:
        if sizes.get(picture.name) != picture.size:
            return f"{picture.name} is missing or has another size than its record says."
    return None


def _row_of(name: str) -> int:
    """The row of a picture's name; -1, which no shard has, if it is no such name."""
    key = PurePosixPath(name).name.split("-")[0]
    return int(key) if key.isdecimal() else -1


def _remove(store: Store, names: Iterable[str]) -> None:
    for name in list(names):
        store.remove(name)
