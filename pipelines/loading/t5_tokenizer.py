"""Checks T5's tokenizer files. Only the vocabulary and the table of normal forms are taken from the model."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.errors import RelayError, shown
from ..files.config_files import read_json_object, read_optional_json
from .tokenizer_files import settings_of

FILE = "tokenizer.json"
MOST_PIECES, LONGEST_PIECE = 400_000, 1_000
"""T5 has 32,128 pieces, multilingual T5 has 250,112."""
MOST_NORMAL_FORMS = 4_000_000
"""Characters of the table in base64; T5's has 316,720."""
END = "</s>"
SPACE = "\u2581"
METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}


def checked_t5_files(folder: Path, where: str) -> dict[str, str]:
    """Name -> text of each file that the tokenizer is built from.

    Args:
        folder: a folder with tokenizer.json and its settings. A spiece.model is not read; it must be converted first.
        where: the folder, for messages.

    Raises:
        RelayError: a file does not contain what it should.
    """
    whole = read_json_object(folder / FILE, f"{where}/{FILE}")
    model = whole.get("model")
    if not isinstance(model, Mapping) or model.get("type") not in (None, "Unigram"):
        raise _damaged(where, "its model")
    pieces = _pieces(model.get("vocab"), where)
    unknown = model.get("unk_id")
    if not isinstance(unknown, int) or not 0 <= unknown < len(pieces):
        raise _damaged(where, f"unk_id {shown(unknown)}")
    numbers = {text: number for number, (text, _) in enumerate(pieces)}
    if END not in numbers:
        raise _damaged(where, f"a vocabulary without {END}")
    files = {FILE: json.dumps(_plain(pieces, unknown, numbers[END], _normal_forms(whole.get("normalizer"), where)))}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        typed = name == "tokenizer_config.json"
        settings = settings_of(read_optional_json(folder / name, f"{where}/{name}"), f"{where}/{name}", typed=typed)
        if typed:
            settings["extra_ids"] = sum(text.startswith("<extra_id_") for text in numbers)
        if settings:
            files[name] = json.dumps(settings)
    return files


def _plain(pieces: list[tuple[str, float]], unknown: int, end: int, normal_forms: str | None) -> dict[str, Any]:
    """tokenizer.json as transformers writes it for T5."""
    special = [(number, text) for number, (text, _) in enumerate(pieces) if text in ("<pad>", END, "<unk>")]
    normalizer = None if normal_forms is None else {"type": "Precompiled", "precompiled_charsmap": normal_forms}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ending = {"SpecialToken": {"id": END, "type_id": 0}}
    return {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": text, **flags} for number, text in special],
        "truncation": None,
        "padding": None,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, ending],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, ending, {"Sequence": {"id": "B", "type_id": 0}}, ending],
            "special_tokens": {END: {"id": END, "ids": [end], "tokens": [END]}},
        },
        "decoder": METASPACE,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": pieces, "byte_fallback": False},
    }


def _pieces(value: object, where: str) -> list[tuple[str, float]]:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_PIECES:
        raise _damaged(where, "its vocabulary")
    pieces: list[tuple[str, float]] = []
    for entry in value:
        if not isinstance(entry, list) or len(entry) != 2:
            raise _damaged(where, f"the piece {shown(entry)}")
        text, score = entry
        valid = isinstance(text, str) and len(text) <= LONGEST_PIECE and isinstance(score, (int, float))
        if not valid or not math.isfinite(score):
            raise _damaged(where, f"the piece {shown(entry)}")
        pieces.append((text, float(score)))
    return pieces


def _normal_forms(normalizer: object, where: str) -> str | None:
    """sentencepiece's table in base64, from a normalizer or one of its parts."""
    if normalizer is None:
        return None
    parts = normalizer.get("normalizers") if isinstance(normalizer, Mapping) else None
    for part in parts if isinstance(parts, list) else [normalizer]:
        table = part.get("precompiled_charsmap") if isinstance(part, Mapping) else None
        if isinstance(table, str) and len(table) <= MOST_NORMAL_FORMS:
            try:
                base64.b64decode(table, validate=True)
            except binascii.Error as error:
                raise _damaged(where, "its table of normal forms") from error
            return table
    return None


def _damaged(where: str, what: str) -> RelayError:
    return RelayError(f"{where}/{FILE} is not a T5 tokenizer: {what} can't be used. Download the file again.")
