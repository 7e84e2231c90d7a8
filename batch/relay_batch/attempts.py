"""How often a row was begun. It is counted on the disk before the row runs, so that a row that ends its worker is counted too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from .records import IN_A_FOLDER, key_of
from .store import Store

FOLDER = "attempts"


@dataclass(frozen=True)
class Attempts:
    """How often a row was begun and has not ended, and what ended its workers, as far as it is known."""

    count: int = 0
    reasons: Sequence[str] = ()


def attempts_name(index: int) -> str:
    return f"{FOLDER}/{index // IN_A_FOLDER:04}/{key_of(index)}.json"


def read_attempts(store: Store, index: int) -> Attempts:
    with suppress(FileNotFoundError, ValueError, TypeError):
        return Attempts(**json.loads(store.read(attempts_name(index))))
    return Attempts()


def begin_attempt(store: Store, index: int) -> Attempts:
    """Counts one more, and returns them all."""
    before = read_attempts(store, index)
    return _write(store, index, Attempts(before.count + 1, before.reasons))


def note_reason(store: Store, index: int, reason: str) -> None:
    before = read_attempts(store, index)
    _write(store, index, Attempts(before.count, [*before.reasons, reason]))


def take_back_attempt(store: Store, index: int) -> None:
    """The attempt was ended from outside, and does not count."""
    before = read_attempts(store, index)
    if before.count > 1:
        _write(store, index, Attempts(before.count - 1, before.reasons))
    else:
        forget_attempts(store, index)


def forget_attempts(store: Store, index: int) -> None:
    store.remove(attempts_name(index))


def _write(store: Store, index: int, attempts: Attempts) -> Attempts:
    store.replace(attempts_name(index), json.dumps(asdict(attempts), ensure_ascii=False).encode())
    return attempts
