"""Reads the small files of a model safely: they come from strangers, so their size is limited and they are only data."""

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
"""Limit for vocabularies and shard indexes; CLIP's tokenizer.json has 4 MB."""
JSON = (b"{", b"[", b'"')
MOST_DIGITS = 40
"""Limit for an integer. transformers writes 10**30 for "no limit"."""
VOCABULARIES = ("vocab.json", "merges.txt", "tokenizer.json", "added_tokens.json")


def most_bytes(name: str) -> int:
    """The size limit of the file ``name``."""
    large = name.endswith(VOCABULARIES) or ".index." in name
    return MOST_VOCABULARY_BYTES if large else MOST_CONFIG_BYTES


def read_small(path: Path, where: str) -> bytes:
    """The content of a config or vocabulary.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
        RelayError: it is not a plain file, is too large, or can't be read. ``where`` begins the message.
    """
    most = most_bytes(path.name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a device or a pipe might never end
            raise RelayError(f"{where} is not a plain file. Use a complete copy of the model.")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise RelayError(
            f"{where} can't be read ({error.strerror or error}). Check that its disk is connected."
        ) from error
    if len(content) > most:
        raise RelayError(f"{where} is larger than {most // 2**20} MB, the limit for such a file. Download it again.")
    return content


def read_json_object(path: Path, where: str) -> dict[str, Any]:
    """The JSON object in a file: strict JSON in UTF-8, with or without a byte order mark, without repeated keys or NaN. Infinity is allowed.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
        RelayError: it is not such an object, or :func:`read_small` raises it.
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
        raise RelayError(f"{where} can't be read ({reason}). The file is damaged: download it again.") from error
    if not isinstance(value, dict):
        raise RelayError(f"{where} is not a JSON object. The file is damaged: download it again.")
    return value


def read_optional_json(path: Path, where: str) -> Mapping[str, Any]:
    """:func:`read_json_object`, or an empty mapping if there is no file."""
    try:
        return read_json_object(path, where)
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = iter(found)
        repeated = next(name for name, _ in pairs if name != next(names, None))
        raise ValueError(f"{repeated[:80]!r} occurs twice")
    return found


def _constant(name: str) -> float:
    return _refuse_number(name) if name == "NaN" else float(name.replace("Infinity", "inf"))


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= MOST_DIGITS else _refuse_number(f"an integer with {len(digits)} digits")


def _refuse_number(what: str) -> NoReturn:
    raise ValueError(f"{what} is not a valid number in a model's config")
