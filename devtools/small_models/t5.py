"""A small T5 text encoder and its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .tokenizer import WORDS
from .weights import random_module

END, PAD, UNKNOWN, SPACE = "</s>", "<pad>", "<unk>", "\u2581"


def make_t5(seed: int, width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(_pieces()),
        d_model=width,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    encoder = random_module(lambda: T5EncoderModel(config), seed)
    encoder.encoder.embed_tokens.weight = encoder.shared.weight
    return encoder


def make_t5_tokenizer(folder: Path) -> Any:
    from transformers import T5TokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ending = {"SpecialToken": {"id": END, "type_id": 0}}
    text = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": one, **special} for i, one in enumerate((PAD, END, UNKNOWN))],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, ending],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, ending, {"Sequence": {"id": "B", "type_id": 0}}, ending],
            "special_tokens": {END: {"id": END, "ids": [1], "tokens": [END]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": _pieces(), "byte_fallback": False},
    }
    settings = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 0}
    settings |= {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    (folder / "tokenizer.json").write_text(json.dumps(text), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return T5TokenizerFast.from_pretrained(folder)


def _pieces() -> list[tuple[str, float]]:
    """Each of WORDS is one piece; every other text of printable ASCII is written in letters."""
    words = [SPACE + word for word in dict.fromkeys(WORDS.split())]
    letters = [SPACE, *map(chr, range(33, 127))]
    rare = [(letter, -12.0) for letter in letters]
    return [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0), *((word, -6.0) for word in words), *rare]
