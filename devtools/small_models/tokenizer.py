"""A byte-pair tokenizer like CLIP's, with a vocabulary of a few hundred tokens.

CLIP's own vocabulary has 49408 tokens, which would be most of a small model's size. This one has every byte (so it can encode any
text) and one token for each word in WORDS.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

START = "<|startoftext|>"
END = "<|endoftext|>"
MAX_LENGTH = 77
END_OF_WORD = "</w>"

WORDS = """
a an the of in on at with and or by to for from is it style art artstyle pixelartstyle charliebo photo photograph picture
image drawing painting oil watercolor ink sketch comic book anime pixel fantasy portrait landscape astronaut jungle cold
warm color colors palette muted vivid detailed cat cats dog ball wizard gandalf lord rings cute adorable pixar disney
forest river lake sea mountain snow house castle city street night day morning sunset light dark red green blue yellow
orange purple black white old young small big tall fluffy hat robe armor sword ship robot dragon flower flowers tree
trees sky cloud clouds moon star stars sun playing sitting standing running ugly deformed disfigured poor details bad
anatomy blurry low quality best high resolution sharp focus soft lighting cinematic masterpiece trending k
"""


def byte_alphabet() -> dict[int, str]:
    """{byte: printable character for it in GPT-2's and CLIP's vocabularies}."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    alphabet = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in alphabet:
            alphabet[byte] = chr(256 + len(alphabet) - len(printable))
    return alphabet


def learn_merges(words: list[str], end: str = END_OF_WORD) -> list[tuple[str, str]]:
    """Repeatedly merges the most common pair until every word is one token. The last letter of a word has `end` after it."""
    spelled = [[*word[:-1], word[-1] + end] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for symbols in spelled for pair in pairwise(symbols))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_joined(symbols, best) for symbols in spelled]


def _joined(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """{token: id} in CLIP's order: bytes (so that "!" is 0), bytes at the end of a word, merges, start, end."""
    letters = list(byte_alphabet().values())
    tokens = [*letters, *(letter + END_OF_WORD for letter in letters), *("".join(pair) for pair in merges), START, END]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def save_tokenizer(folder: Path, pad_token: str = END, words: Sequence[str] = tuple(WORDS.split())) -> int:
    """Writes tokenizer files for CLIPTokenizer.from_pretrained. Returns the number of tokens."""
    merges = learn_merges(list(words))
    vocab = vocabulary(merges)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_tokenizer_config(folder, pad_token)
    return len(vocab)


def write_tokenizer_config(folder: Path, pad_token: str = END) -> None:
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad_token}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_LENGTH,
        "do_lower_case": True,
        "add_prefix_space": False,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2), encoding="utf-8")
