"""Runs a CLIP text encoder through Compel, in blocks of 77 tokens, and reads a chosen layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..pipelines.base.errors import RelayError
from .compel_calls import Layer, ReadLayer, compel_class, compel_tree, passages_side_by_side
from .encoder_runs import TextEncoder
from .prompt_text import Blend, Fragment, Passage, Prompt

if TYPE_CHECKING:
    import torch

MAX_RUNS = 4_096
"""Runs of an encoder for one prompt. Their outputs are in memory together: 1.6 GB for SDXL's larger encoder."""
HOST_KEEPS_WHOLE = 8
"""ComfyUI's ``max_word_length``: a piece with fewer tokens that does not fit moves to the next block of 77."""


class _QuietTokenizer:
    """A tokenizer that does not warn about texts of more than 77 tokens, because they are split later."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, texts: list[str], **options: Any) -> Any:
        return self._tokenizer(texts, verbose=False, **options)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """Only the first 77: Compel asks for all remaining tokens at each split, but looks for the split only among these."""
        tokens: list[str] = self._tokenizer.convert_ids_to_tokens(ids[: self._tokenizer.model_max_length])
        return tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class _Expander:
    """Compel's textual inversion manager. diffusers' own converts tokens to text and back, which can change other tokens."""

    def __init__(self, expansions: Mapping[int, list[int]]) -> None:
        self._expansions = expansions

    def expand_textual_inversion_token_ids_if_necessary(self, token_ids: list[int]) -> list[int]:
        return [number for token in token_ids for number in self._expansions.get(token, [token])]


class LayerEncoder:
    """Applies Compel to one layer of a :class:`TextEncoder`."""

    def __init__(self, source: TextEncoder, read: ReadLayer) -> None:
        self.device = source.device
        self._source = source
        self._compel = compel_class()(
            tokenizer=_QuietTokenizer(source.tokenizer),  # type: ignore[arg-type]
            text_encoder=Layer(source, read),
            textual_inversion_manager=_Expander(source.expansions) if source.expansions else None,
            truncate_long_prompts=False,
        )

    def hidden(self, prompt: Prompt) -> torch.Tensor:
        """[1, n * 77, width], float32: as many blocks of 77 tokens as the text needs.

        Raises:
            RelayError: weights below 1 need more than :data:`MAX_RUNS` runs.
        """
        self._check_runs(prompt)
        return self._compel.build_conditioning_tensor_for_conjunction(compel_tree(prompt))[0]

    def _check_runs(self, prompt: Prompt) -> None:
        provider = self._compel.conditioning_provider
        runs = most = 0
        for passage in (passage for side in passages_side_by_side(prompt) for passage in side):
            tokens = sum(map(len, provider.get_token_ids([f.text for f in passage.fragments], False)))
            lighter = sum(fragment.weight < 1 for fragment in passage.fragments)
            runs += (1 + lighter) * (1 + tokens // (provider.max_token_count - 2))
            most = max(most, lighter)
        if runs > MAX_RUNS:
            raise RelayError(
                f"prompt: it needs {runs:,} runs of the text encoder, and at most {MAX_RUNS:,} are allowed. Each weight below 1 reads the whole "
                f"text again, and one text has {most:,} of them. Use fewer, or a shorter text."
            )

    def padded(self, hidden: torch.Tensor, tokens: int) -> torch.Tensor:
        """``hidden`` with empty texts appended, up to ``tokens``."""
        import torch

        if hidden.shape[1] == tokens:
            return hidden
        empty = self._compel.conditioning_provider.empty_z
        return torch.cat([hidden] + [empty] * ((tokens - hidden.shape[1]) // empty.shape[1]), dim=1)

    def pooled(self, prompt: Prompt) -> torch.Tensor:
        """[1, width], float32: of the literal text, cut at 77 tokens as in diffusers. A blend gives the mean of its texts'."""
        from compel import EmbeddingsProvider

        provider = self._compel.conditioning_provider
        if len(prompt.parts) == 1 and isinstance(blend := prompt.parts[0], Blend):
            return _blended(
                EmbeddingsProvider,
                [provider.get_pooled_embeddings([passage.text]) for passage in blend.passages],
                blend,
            )
        return provider.get_pooled_embeddings([prompt.text])

    def host_pooled(self, prompt: Prompt) -> torch.Tensor:
        """[1, width], float32: the ``pooled_output`` of ComfyUI's CLIP-L, which is the normalised last layer at the end mark.

        It comes from the first 77 tokens as ComfyUI fills them: a weighted piece of fewer than 8 tokens is not split.
        A blend gives the mean of its texts'. Source: ``comfy/sd1_clip.py``, ``tokenize_with_weights``.
        """
        from compel import EmbeddingsProvider

        if len(prompt.parts) == 1 and isinstance(blend := prompt.parts[0], Blend):
            each = [self._state_at_end(passage.fragments) for passage in blend.passages]
            return _blended(EmbeddingsProvider, each, blend)
        passages = [passage for side in passages_side_by_side(prompt) for passage in side]
        return self._state_at_end([fragment for passage in passages for fragment in passage.fragments])

    def _state_at_end(self, fragments: Sequence[Fragment]) -> torch.Tensor:
        import torch

        provider = self._compel.conditioning_provider
        length = provider.max_token_count
        ids: list[int] = []
        for tokens in provider.get_token_ids([fragment.text for fragment in fragments], False):
            room = length - 2 - len(ids)
            if room < len(tokens) < HOST_KEEPS_WHOLE:
                break
            ids += tokens[:room]
            if room < len(tokens):
                break
        end = 1 + len(ids)
        ids = [*provider.bos_sequence, *ids, *provider.eos_sequence]
        ids += [self._source.tokenizer.pad_token_id] * (length - len(ids))
        output = self._source.output(torch.tensor([ids], device=self.device), None)
        state: torch.Tensor = output.last_hidden_state[:, end]
        return state.float()

    def token_masks(self, prompt: Prompt) -> torch.Tensor:
        """[n, 77] bool, a row for each block of :meth:`hidden`: True for text, including its start and end marks."""
        import torch

        rows = [self._mask(passages) for passages in passages_side_by_side(prompt)]
        return torch.cat(rows)

    def _mask(self, passages: tuple[Passage, ...]) -> torch.Tensor:
        import torch

        provider, tokenizer = self._compel.conditioning_provider, self._source.tokenizer
        masks = []
        for passage in passages:
            texts, weights = [f.text for f in passage.fragments], [f.weight for f in passage.fragments]
            ids = provider.get_token_ids_and_expand_weights(texts, weights, device=self.device)[0].reshape(
                -1, provider.max_token_count
            )
            padding = (ids == tokenizer.pad_token_id).flip(-1).cumprod(-1).flip(-1).bool()
            if tokenizer.pad_token_id == tokenizer.eos_token_id:
                padding[:, 1:] = padding[:, 1:] & padding[:, :-1]  # the first one is the end mark
            masks.append(~padding)
        longest = max(mask.shape[0] for mask in masks)
        together = torch.zeros(longest, masks[0].shape[1], dtype=torch.bool, device=self.device)
        for mask in masks:
            together[: mask.shape[0]] |= mask
        return together


def _blended(provider: Any, pooled: Sequence[torch.Tensor], blend: Blend) -> torch.Tensor:
    import torch

    each = torch.stack(list(pooled), dim=1)[..., None]
    mean: torch.Tensor = provider.apply_embedding_weights(each, list(blend.weights), blend.normalize)[..., 0]
    return mean
