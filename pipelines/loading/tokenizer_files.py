"""Checks the tokenizer files of CLIP and other byte-pair tokenizers, and builds a tokenizer. transformers reads a checked copy, never
the model's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..base.errors import RelayError
from ..files.config_files import read_json_object, read_optional_json, read_small
from ..files.model_files import short

SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
EXTRA = ("additional_special_tokens", "extra_special_tokens")
FLAGS = ("add_prefix_space", "do_lower_case", "clean_up_tokenization_spaces", "split_special_tokens")
SIDES = ("padding_side", "truncation_side")
MOST_TOKENS, MOST_ADDED = 400_000, 10_000
"""CLIP has 49,408 tokens, plus those of embeddings that were saved with a model; Qwen has 151,936."""
LONGEST_TOKEN = 1_000
LONGEST_PROMPT = 4_096
"""In tokens. A greater model_max_length means "no limit", as transformers writes if none is set."""


def read_tokenizer(files: Mapping[str, str], component_class: Any) -> Any:
    """
    Args:
        files: name -> text, from :func:`checked_files` or :func:`.checked_t5_files`.
        component_class: transformers' tokenizer.
    """
    with TemporaryDirectory(prefix="diffusers-relay-") as copy:
        for name, text in files.items():
            (Path(copy) / name).write_text(text, "utf-8", newline="\n")
        return component_class.from_pretrained(copy, local_files_only=True)


def checked_files(folder: Path, where: str) -> dict[str, str]:
    """Name -> text of each file that the tokenizer is built from, without entries that are not tokenizer data."""

    def at(name: str) -> str:
        return f"{where}/{name}"

    files: dict[str, str] = {}
    whole = read_optional_json(folder / "tokenizer.json", at("tokenizer.json"))
    if whole:
        vocabulary, merges = in_tokenizer_json(whole, at("tokenizer.json"))
        files["tokenizer.json"] = json.dumps(_plain_tokenizer(whole, vocabulary, merges, at("tokenizer.json")))
        files["vocab.json"], files["merges.txt"] = json.dumps(vocabulary), "\n".join(["#version: 0.2", *merges, ""])
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        vocabulary, merges = in_two_files(folder, where)
        files["vocab.json"], files["merges.txt"] = json.dumps(vocabulary), "\n".join(["#version: 0.2", *merges, ""])
    added = read_optional_json(folder / "added_tokens.json", at("added_tokens.json"))
    if added:
        files["added_tokens.json"] = json.dumps(checked_vocabulary(added, at("added_tokens.json"), MOST_ADDED))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        typed = name == "tokenizer_config.json"
        settings = settings_of(read_optional_json(folder / name, at(name)), at(name), typed=typed)
        if settings:
            files[name] = json.dumps(settings)
    return files


def in_tokenizer_json(whole: Mapping[str, Any], where: str) -> tuple[dict[str, int], list[str]]:
    """The vocabulary and the merges of a tokenizer.json."""
    model = whole.get("model")
    model = model if isinstance(model, Mapping) else {}
    vocabulary, merges = checked_vocabulary(model.get("vocab"), where), _merges(model.get("merges"), where)
    _check_merges(merges, vocabulary, where)
    return vocabulary, merges


def in_two_files(folder: Path, where: str) -> tuple[dict[str, int], list[str]]:
    """The vocabulary of vocab.json and the merges of merges.txt."""
    vocab, lines_of = f"{where}/vocab.json", f"{where}/merges.txt"
    vocabulary = checked_vocabulary(read_json_object(folder / "vocab.json", vocab), vocab)
    lines = _text(folder / "merges.txt", lines_of).replace("\r", "").split("\n")
    merges = _merges([line for line in lines if line and not line.startswith("#version")], lines_of)
    _check_merges(merges, vocabulary, lines_of)
    return vocabulary, merges


def added_tokens(whole: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The added tokens of a tokenizer.json."""
    added = whole.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > MOST_ADDED:
        raise _damaged(where, "added_tokens")
    return [{"id": _number(token, where), **_token(token, where)} for token in added]


def _plain_tokenizer(
    whole: Mapping[str, Any], vocabulary: Mapping[str, int], merges: list[str], where: str
) -> dict[str, Any]:
    """tokenizer.json with only the vocabulary and the added tokens; transformers has the rest of CLIP's tokenizer."""
    return {
        "version": "1.0",
        "added_tokens": added_tokens(whole, where),
        **dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")),
        "model": {
            "type": "BPE",
            "unk_token": "<|endoftext|>",
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def settings_of(config: Mapping[str, Any], where: str, *, typed: bool) -> dict[str, Any]:
    """The data in tokenizer_config.json or special_tokens_map.json, without keys that name files or classes.

    ``typed``: whether tokens include their type. transformers needs it in the first file and rejects it in the second.
    """
    found: dict[str, Any] = {}
    for name in SPECIAL:
        if config.get(name) is not None:
            found[name] = _special(config[name], where, typed)
    for name in EXTRA:
        tokens = config.get(name)
        if isinstance(tokens, list) and tokens:
            if len(tokens) > MOST_ADDED:
                raise _damaged(where, name)
            found[name] = [_special(token, where, typed) for token in tokens]
    if isinstance(decoder := config.get("added_tokens_decoder"), Mapping):
        if len(decoder) > MOST_ADDED or not all(isinstance(key, str) and key.isdecimal() for key in decoder):
            raise _damaged(where, "added_tokens_decoder")
        found["added_tokens_decoder"] = {
            str(_number({"id": int(key[:12])}, where)): _token(token, where) for key, token in decoder.items()
        }
    found |= {name: config[name] for name in FLAGS if isinstance(config.get(name), bool)}
    found |= {name: config[name] for name in SIDES if config.get(name) in ("left", "right")}
    longest = config.get("model_max_length")
    if isinstance(longest, int) and not isinstance(longest, bool) and 2 < longest <= LONGEST_PROMPT:
        found["model_max_length"] = longest
    return found


def _special(token: object, where: str, typed: bool) -> Any:
    if isinstance(token, Mapping):
        return {**({"__type": "AddedToken"} if typed else {}), **_token(token, where)}
    return _content(token, where)


def _token(token: object, where: str) -> dict[str, Any]:
    if not isinstance(token, Mapping):
        raise _damaged(where, short(token))
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {
        "content": _content(token.get("content"), where),
        **{name: token[name] for name in flags if isinstance(token.get(name), bool)},
    }


def _content(text: object, where: str) -> str:
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_TOKEN:
        raise _damaged(where, f"the token {short(text)}")
    return text


def _number(token: object, where: str) -> int:
    number = token.get("id") if isinstance(token, Mapping) else None
    if not isinstance(number, int) or not 0 <= number < MOST_TOKENS:
        raise _damaged(where, f"the token number {short(number)}")
    return number


def checked_vocabulary(value: object, where: str, most: int = MOST_TOKENS) -> dict[str, int]:
    if not isinstance(value, Mapping) or len(value) > most:
        raise _damaged(where, "its vocabulary")
    for text, number in value.items():
        if len(text) > LONGEST_TOKEN or not isinstance(number, int) or not 0 <= number < MOST_TOKENS:
            raise _damaged(where, f"the token {short(text)}: {short(number)}")
    return dict(value)


def _merges(value: object, where: str) -> list[str]:
    """The merges as ``"a b"``; newer files have pairs."""
    if not isinstance(value, list) or len(value) > MOST_TOKENS:
        raise _damaged(where, "its merges")
    merges = [" ".join(map(str, pair)) if isinstance(pair, list) else pair for pair in value]
    for merge in merges:
        if not isinstance(merge, str) or len(merge) > LONGEST_TOKEN or merge.count(" ") != 1:
            raise _damaged(where, f"the merge {short(merge)}")
    return merges


def _check_merges(merges: list[str], vocabulary: Mapping[str, int], where: str) -> None:
    """Checks that both parts and the result of each merge are tokens."""
    for merge in merges:
        left, right = merge.split(" ")
        if not (left in vocabulary and right in vocabulary and left + right in vocabulary):
            raise _damaged(where, f"the merge {short(merge)}, whose tokens are not all in the vocabulary,")


def _text(path: Path, where: str) -> str:
    try:
        return read_small(path, where).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RelayError(f"{where} is not a text file ({error.reason}). Download it again.") from error


def _damaged(where: str, what: str) -> RelayError:
    return RelayError(f"{where} is not a tokenizer of such a model: {what} can't be used. Download the file again.")
