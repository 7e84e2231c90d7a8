"""Runs a T5 text encoder through Compel. It reads a text as a whole, padded to the length of the longest text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..pipelines.base.errors import RelayError
from .compel_calls import Layer, compel_class, compel_tree, passages_side_by_side
from .encoder_runs import TextEncoder
from .prompt_text import Passage, Prompt
from .text_encoder import MAX_RUNS

if TYPE_CHECKING:
    import torch

LENGTH = 256
"""Tokens: diffusers' ``max_sequence_length``. Longer texts are padded to a multiple of it."""
MAX_STATES = MAX_RUNS * 77 * 1280
"""Numbers in the outputs of all runs for one prompt, which are in memory together: 1.6 GB, as for SDXL's larger CLIP."""
SPACES = re.compile(r"\s+")
FOLLOWS_AT_ONCE = re.compile(r"[,.;:!?)\]}%…]|['’](?:s|t|re|ve|m|ll|d)\b", re.IGNORECASE)
"""The start of a fragment that has no space before it. The syntaxes drop spaces, but T5's tokens depend on them."""


def t5_length(tokenizer: Any, prompts: Iterable[Prompt], step: int = LENGTH) -> int:
    """Tokens of the longest passage of ``prompts`` with its end mark, rounded up to a multiple of ``step``."""
    passages = [passage for prompt in prompts for side in passages_side_by_side(prompt) for passage in side]
    longest = max(sum(len(ids) for ids, _ in weighted_tokens(tokenizer, passage)) + 1 for passage in passages)
    return -(-longest // step) * step


def weighted_tokens(tokenizer: Any, passage: Passage) -> list[tuple[list[int], float]]:
    """Token ids with their weights, by fragment, without the end mark. Together, they are the tokens of the whole text.

    A token that spans several fragments (``etc.``) gets the weight that is farthest from 1.
    """
    text, starts = _joined(passage)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    owners = []
    for start, end in encoded["offset_mapping"]:
        if spaces := SPACES.match(text, start):
            start = spaces.end()  # spaces belong to the next fragment, but some tokenizers add them to a token
        touched = range(_fragment_at(starts, start), _fragment_at(starts, max(start, end - 1)) + 1)
        owners.append(max(touched, key=lambda index: abs(passage.fragments[index].weight - 1)))
    grouped = groupby(zip(encoded["input_ids"], owners), key=lambda pair: pair[1])
    return [([number for number, _ in tokens], passage.fragments[owner].weight) for owner, tokens in grouped]


def _joined(passage: Passage) -> tuple[str, list[int]]:
    """The text of ``passage``, and the index at which each fragment starts."""
    text = ""
    starts = []
    for fragment in passage.fragments:
        if text and fragment.text and not FOLLOWS_AT_ONCE.match(fragment.text):
            text += " "
        starts.append(len(text))
        text += fragment.text
    return text, starts


def _fragment_at(starts: list[int], index: int) -> int:
    return max(0, bisect_right(starts, index) - 1)


class T5Encoder:
    """Applies Compel to the states of a T5 encoder, with ``length`` tokens per passage.

    The padding counts too: diffusers runs T5 without an attention mask and uses all of its states.
    """

    def __init__(self, source: TextEncoder, length: int) -> None:
        self._source = source
        self._length = length
        self._tokenizer = _NumberedTokens(source.tokenizer, length)
        self._compel = compel_class()(
            tokenizer=self._tokenizer,
            text_encoder=Layer(source, lambda output: output.last_hidden_state),
            # Nothing is truncated, because all texts fit. Without it, Compel would exempt the first token from masks as a
            # start mark, which T5 does not have.
            truncate_long_prompts=True,
        )

    def hidden(self, prompt: Prompt) -> torch.Tensor:
        """[1, n * length, width], float32: ``length`` tokens for each part of the prompt.

        Raises:
            RelayError: weights below 1 need more than :data:`MAX_RUNS` runs, or more than :data:`MAX_STATES` numbers.
        """
        self._check_runs(prompt)
        tree = compel_tree(prompt, self._pieces)
        states: torch.Tensor = self._compel.build_conditioning_tensor_for_conjunction(tree)[0]
        return states

    def padded(self, hidden: torch.Tensor, tokens: int) -> torch.Tensor:
        """``hidden`` with empty texts appended, up to ``tokens``."""
        import torch

        if hidden.shape[1] == tokens:
            return hidden
        empty = self._compel.conditioning_provider.empty_z
        return torch.cat([hidden] + [empty] * ((tokens - hidden.shape[1]) // self._length), dim=1)

    def _pieces(self, passage: Passage) -> list[tuple[str, float]]:
        return [
            (self._tokenizer.numbered(ids), weight) for ids, weight in weighted_tokens(self._source.tokenizer, passage)
        ]

    def _check_runs(self, prompt: Prompt) -> None:
        lighter = [
            sum(weight < 1 for _, weight in weighted_tokens(self._source.tokenizer, passage))
            for side in passages_side_by_side(prompt)
            for passage in side
        ]
        runs = sum(1 + number for number in lighter)
        encoder: Any = self._source.encoder
        most = min(MAX_RUNS, MAX_STATES // (self._length * encoder.config.hidden_size))
        if runs > most:
            raise RelayError(
                f"prompt: it needs {runs:,} runs of the T5 text encoder over {self._length:,} tokens, and at most {most:,} are allowed. Each weight "
                f"below 1 reads the whole text again, and one text has {max(lighter):,} of them. Use fewer, or a shorter text."
            )


class _NumberedTokens:
    """A tokenizer for Compel whose texts are numbers of token lists that were made before."""

    bos_token_id = None

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.model_max_length = length
        self.eos_token_id = tokenizer.eos_token_id
        self.pad_token_id = tokenizer.pad_token_id
        self._tokens: list[list[int]] = []

    def numbered(self, ids: list[int]) -> str:
        """The text that this tokenizer turns into ``ids``."""
        self._tokens.append(ids)
        return str(len(self._tokens) - 1)

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        """Adds an end mark, because Compel removes it and adds its own."""
        return {"input_ids": [[*(self._tokens[int(text)] if text else []), self.eos_token_id] for text in texts]}
