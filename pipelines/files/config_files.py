"""The small files of a model, read with care: they are a stranger's, so they are data, of a bounded size, or refused."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..base.errors import RelayError
from .first_bytes import START, what_it_is

MOST_CONFIG_BYTES = 2**20
MOST_VOCABULARY_BYTES = 32 * 2**20
"""Of vocabularies and of indexes of shards; CLIP's tokenizer.json has 4 MB."""
JSON = (b"{", b"[", b'"')
MOST_DIGITS = 40
"""Of an integer. transformers writes 10**30 for "no limit"."""
VOCABULARIES = ("vocab.json", "merges.txt", "tokenizer.json", "added_tokens.json")


def most_bytes(name: str) -> int:
    """How large the file ``name`` of a model may be."""
    large = name.endswith(VOCABULARIES) or ".index." in name
    return MOST_VOCABULARY_BYTES if large else MOST_CONFIG_BYTES


def read_small(path: Path, where: str) -> bytes:
    """The content of a config or vocabulary.

    Raises:
        FileNotFoundError, NotADirectoryError: as they are.
        RelayError: it is no plain file, too large for what it is, or the disk refuses it. ``where`` begins the message.
    """
    most = most_bytes(path.name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a device or a pipe would be read for ever
            raise RelayError(f"{where} is not a plain file. Take a complete copy of the model.")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise RelayError(
            f"{where} cannot be read ({error.strerror or error}). Look whether its disk is there."
        ) from error
    if len(content) > most:
        raise RelayError(f"{where} is larger than {most // 2**20} MB, which no file of its kind is. Download it anew.")
    return content


def read_json_object(path: Path, where: str) -> dict[str, Any]:
    """The JSON object in a file: strict JSON of UTF-8 (a mark at its start is passed over), each key once, no NaN; infinities are let through.

    Raises:
        FileNotFoundError, NotADirectoryError: as they are.
        RelayError: it is none, or :func:`read_small`'s.
    """
    content = read_small(path, where)
    try:
        value = json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer
        )
    except (ValueError, RecursionError) as error:
        if (what := what_it_is(content[:START])) and not content.lstrip().startswith(JSON):
            raise RelayError(f"{where} {what}.") from error
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RelayError(f"{where} cannot be read ({reason}). The file is damaged: download it anew.") from error
    if not isinstance(value, dict):
        raise RelayError(f"{where} holds no JSON object. The file is damaged: download it anew.")
    return value


def read_optional_json(path: Path, where: str) -> Mapping[str, Any]:
    """:func:`read_json_object`, or an empty one where there is no file."""
    try:
        return read_json_object(path, where)
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = iter(found)
        twice = next(name for name, _ in pairs if name != next(names, None))
        raise ValueError(f"{twice[:80]!r} is there twice")
    return found


def _constant(name: str) -> float:
    return _no_number(name) if name == "NaN" else float(name.replace("Infinity", "inf"))


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= MOST_DIGITS else _no_number(f"an integer of {len(digits)} digits")


def _no_number(what: str) -> NoReturn:
    raise ValueError(f"{what} is no number that a model has")
