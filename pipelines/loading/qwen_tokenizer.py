"""Checks the tokenizer files of Qwen's LLMs. Only the vocabulary, the merges and the added tokens are taken from the model; its chat
template is code and is not read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.errors import RelayError
from ..files.config_files import read_optional_json
from .tokenizer_files import (
    MOST_ADDED,
    added_tokens,
    checked_vocabulary,
    in_tokenizer_json,
    in_two_files,
    settings_of,
)

FILE = "tokenizer.json"
MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
"""Tokens that the templates around a prompt and the padding need."""
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizers split a text into words, from Qwen's tokenizer.json."""
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def checked_qwen_files(folder: Path, where: str) -> dict[str, str]:
    """Name -> text of each file that the tokenizer is built from.

    Args:
        folder: a folder with tokenizer.json, or with vocab.json and merges.txt.
        where: the folder, for messages.

    Raises:
        RelayError: a file does not contain what it should.
    """
    whole = read_optional_json(folder / FILE, f"{where}/{FILE}")
    vocabulary, merges = in_tokenizer_json(whole, f"{where}/{FILE}") if whole else in_two_files(folder, where)
    name = "tokenizer_config.json"
    settings = settings_of(read_optional_json(folder / name, f"{where}/{name}"), f"{where}/{name}", typed=True)
    added = _added(folder, whole, settings, where)
    missing = [mark for mark in MARKS if mark not in {token["content"] for token in added}]
    if missing:
        raise RelayError(
            f"{where} is not a Qwen tokenizer: it has no token {', '.join(missing)}. Use one complete copy of the model."
        )
    return {
        FILE: json.dumps(_plain(vocabulary, merges, added)),
        name: json.dumps({"pad_token": MARKS[-1], "eos_token": MARKS[-1], "extra_special_tokens": list(MARKS[:-1])}),
    }


def _added(folder: Path, whole: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The added tokens, in the order of their numbers. tokenizer_config.json and added_tokens.json complete tokenizer.json."""
    name = "added_tokens.json"
    extra = read_optional_json(folder / name, f"{where}/{name}")
    found = {
        number: {"content": text, "special": True}
        for text, number in checked_vocabulary(extra, f"{where}/{name}", MOST_ADDED).items()
    }
    found |= {int(number): token for number, token in settings.get("added_tokens_decoder", {}).items()}
    found |= {token["id"]: token for token in added_tokens(whole, f"{where}/{FILE}")}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return [{**flags, **found[number], "id": number} for number in sorted(found)]


def _plain(vocabulary: Mapping[str, int], merges: list[str], added: list[dict[str, Any]]) -> dict[str, Any]:
    """tokenizer.json as transformers writes it for Qwen."""
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTES]},
        "post_processor": BYTES,
        "decoder": BYTES,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
