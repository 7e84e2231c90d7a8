"""Small LLM text encoders like Qwen's, and their tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .tokenizer import WORDS, byte_alphabet, learn_merges
from .weights import random_module

END, TURN, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
"""What Qwen3's chat template does with a user's message."""
TEMPLATE = """
Describe the image by detailing the color shape size texture quantity text spatial relationships of the objects and background user system
assistant
"""
"""Words of the text that stands around a prompt."""
CONFIG: dict[str, Any] = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
    "rope_theta": 1e6,
}


NO_MARKS = {"bos_token_id": None, "eos_token_id": None}


def make_qwen3(seed: int, width: int) -> Any:
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(vocab_size=_size(), hidden_size=width, head_dim=16, **CONFIG)
    return random_module(lambda: Qwen3Model(config), seed)


def make_qwen25_vl(seed: int, width: int) -> Any:
    """With a vision model, as published; a text does not use it."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    head = width // CONFIG["num_attention_heads"]
    sections = {"type": "default", "rope_type": "default", "mrope_section": [head // 2 - 4, 2, 2]}
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 32,
        "out_hidden_size": width,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5_VLConfig(
        text_config={"vocab_size": _size(), "hidden_size": width, "rope_scaling": sections, **CONFIG, **NO_MARKS},
        vision_config=vision,
    )
    return random_module(lambda: Qwen2_5_VLForConditionalGeneration(config), seed)


def make_qwen_tokenizer(folder: Path) -> Any:
    """The files of Qwen's tokenizers: a byte-pair vocabulary in which a word includes the space before it."""
    from transformers import Qwen2TokenizerFast

    vocabulary, merges = _vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = {str(len(vocabulary) + i): {"content": one, **flags} for i, one in enumerate((END, TURN, TURN_END))}
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": 131072,
        "added_tokens_decoder": added,
        "additional_special_tokens": [TURN, TURN_END],
        "eos_token": TURN_END,
        "pad_token": END,
        "bos_token": None,
        "unk_token": None,
        "add_prefix_space": False,
        "chat_template": CHAT,
    }
    lines = [" ".join(pair) for pair in merges]
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return Qwen2TokenizerFast.from_pretrained(folder)


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    space = byte_alphabet()[ord(" ")]
    words = [form for word in (WORDS + TEMPLATE).split() for form in (word, space + word)]
    merges = learn_merges(words, end="")
    tokens = [*byte_alphabet().values(), *("".join(pair) for pair in merges)]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def _size() -> int:
    return len(_vocabulary()[0]) + 3
