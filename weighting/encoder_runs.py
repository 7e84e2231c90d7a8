"""A text encoder for one call of a node, which caches its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class TextEncoder:
    """A tokenizer and its encoder, which is on ``device``. The encoder runs once for the same tokens."""

    def __init__(
        self,
        encoder: torch.nn.Module,
        tokenizer: Any,
        device: torch.device,
        expansions: Mapping[int, list[int]] | None = None,
        check: Callable[[], None] = lambda: None,
        *,
        layers: bool = True,
    ) -> None:
        """
        Args:
            expansions: token -> its replacement tokens, for textual inversions with several vectors.
            check: called before each run; it raises an exception to stop the encoding.
            layers: outputs have ``hidden_states`` of all layers.
        """
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.device = device
        self.expansions = expansions or {}
        self.check = check
        self._layers = layers
        self._outputs: dict[tuple[Any, ...], Any] = {}

    def output(self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> Any:
        """The encoder's output for ``token_ids`` [1, tokens]. A mask of ones becomes None, because diffusers passes no mask."""
        if attention_mask is not None and bool(attention_mask.all()):
            attention_mask = None
        key = (
            *token_ids.flatten().tolist(),
            None if attention_mask is None else tuple(attention_mask.flatten().tolist()),
        )
        if key in self._outputs:
            return self._outputs[key]
        self.check()
        output = self.encoder(token_ids, attention_mask=attention_mask, output_hidden_states=self._layers)
        if attention_mask is None:  # masked runs are for weights below 1 and never repeat
            self._outputs[key] = output
        return output

    def encode_together(self, texts: Sequence[str]) -> None:
        """Runs ``texts``, each cut at the encoder's length, as one batch. :meth:`output` then returns its rows.

        The last bits of a row depend on the batch size.
        """
        ids = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.device)
        batch = self.encoder(ids, output_hidden_states=True)
        for row, tokens in enumerate(ids.tolist()):
            output = {
                name: value[row : row + 1]
                if hasattr(value, "shape")
                else tuple(state[row : row + 1] for state in value)
                for name, value in batch.items()
            }
            key = (*tokens, None)
            self._outputs[key] = SimpleNamespace(**output)
