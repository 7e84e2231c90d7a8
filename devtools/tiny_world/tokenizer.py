"""The models' tokenizer: CLIP's kind, with every byte and the world's words. It is built from the words, so no file is stored."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from small_models.tokenizer import END, save_tokenizer

from .drawing import TRIGGERS
from .scene import vocabulary


def write_tokenizer(folder: Path, pad_token: str = END) -> int:
    """Writes the files for CLIPTokenizer. Returns the number of tokens."""
    return save_tokenizer(folder, pad_token, vocabulary(tuple(TRIGGERS.values())))


def tokenizer(pad_token: str = END) -> Any:
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), pad_token)
        return CLIPTokenizer.from_pretrained(folder)
