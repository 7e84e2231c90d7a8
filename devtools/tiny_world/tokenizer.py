"""The models' tokenizer: CLIP's kind, with every byte and the world's words. It follows from the words, so no file of it is kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from small_models.tokenizer import END, save_tokenizer

from .drawing import TRIGGERS
from .scene import vocabulary


def write_tokenizer(folder: Path, pad_token: str = END) -> int:
    """Its files, which CLIPTokenizer reads; the answer is the number of tokens."""
    return save_tokenizer(folder, pad_token, vocabulary(tuple(TRIGGERS.values())))


def tokenizer(pad_token: str = END) -> Any:
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), pad_token)
        return CLIPTokenizer.from_pretrained(folder)
