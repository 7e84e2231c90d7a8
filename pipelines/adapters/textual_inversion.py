"""Textual inversion: tokens with their own vectors.

A model with embeddings has copies of the tokenizers that know the tokens. While a stage runs, the vectors are looked up in
addition to the shared token table, with the token ids that diffusers' ``load_textual_inversion`` would give them.
Source: https://huggingface.co/docs/diffusers/using-diffusers/textual_inversion_inference
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.registry import REGISTRY, file_identity
from ..model.adapters import EmbeddingFile, TextualInversion
from ..model.components import PipelineComponents
from ..model.family_lookup import titles_of
from .textual_inversion_file import SDXL_KEYS, read_embedding

if TYPE_CHECKING:
    import torch

KNOWN_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 1280: "SDXL's second text encoder"}


def with_textual_inversion(components: PipelineComponents, path: Path, *, title: str, token: str) -> PipelineComponents:
    """A copy of ``components`` with one more token for prompts, or several.

    Args:
        path: a safetensors file, see :func:`~.textual_inversion_file.read_embedding`.
        title: the file's name for messages.
        token: the token for all vectors, or one for each vector (for each token in the file, if it has several), with commas
            between them; if empty, the tokens in the file, or the file's name if it has none.

    Raises:
        RelayError: the family can't use embeddings, the model has no text encoder, the file is damaged or not an embedding, it was made for another kind
            of model, the model already knows a token, or there are too many or too few of them.
    """
    family = components.family
    if not family.takes_embeddings:
        able = titles_of(lambda one: one.takes_embeddings)
        raise RelayError(
            f"model: {components.source} ({family.title}) can't use an embedding: diffusers does not support embeddings for it. Families that can: {able}."
        )
    if components.lacks_text_encoders:
        raise RelayError(
            f"model: {components.source} ({family.title}) has no text encoder, because its file contains none. Load the embedding into the model that "
            "encodes the prompt."
        )
    file = REGISTRY.get(("embedding", file_identity(path)), lambda: EmbeddingFile(*read_embedding(path, title)))
    vectors = _for_encoders(file.vectors, components, title)
    words = _words(token, file, path.stem, title)
    rows = {name: tensor.split([count for _, count in words]) for name, tensor in vectors.items()}
    inversions = [
        TextualInversion(
            title, word, file, vectors if len(words) == 1 else {name: parts[index] for name, parts in rows.items()}
        )
        for index, (word, _) in enumerate(words)
    ]
    tokenizers = {}
    for encoder in components.text_encoders:
        name = _tokenizer_of(encoder)
        tokenizers[name] = _with_tokens(components[name], inversions, components.source)
    return components.with_changes(modules=tokenizers, embeddings=(*components.embeddings, *inversions))


def _words(token: str, file: EmbeddingFile, name: str, title: str) -> list[tuple[str, int]]:
    """Each word for prompts, with the number of its vectors, in the order of the file's vectors. ``name``: the file's name."""
    chosen = [word for part in token.split(",") if (word := part.strip())]
    total = sum(count for _, count in file.words)
    if not chosen:
        return [(word or name, count) for word, count in file.words]
    if len(chosen) == 1:
        return [(chosen[0], total)]
    if len(chosen) == len(file.words):
        return [(word, count) for word, (_, count) in zip(chosen, file.words)]
    if len(chosen) == total:
        return [(word, 1) for word in chosen]
    raise RelayError(
        f"token: it has {len(chosen)} words, but {title} has {total} vectors. Enter one word for all of them, or one for each, with commas between them."
    )


@contextmanager
def active_embeddings(components: PipelineComponents) -> Iterator[None]:
    """Inside this context, the text encoders know this model's tokens. Afterwards they have their own token table again."""
    with ExitStack() as stack:
        for name in components.text_encoders if components.embeddings else ():
            tokenizer, encoder = components[_tokenizer_of(name)], components[name]
            rows = {
                tokenizer.convert_tokens_to_ids(token): vector
                for inversion in components.embeddings
                for token, vector in zip(inversion.tokens, inversion.vectors[name])
            }
            table = encoder.get_input_embeddings()
            stack.callback(encoder.set_input_embeddings, table)
            encoder.set_input_embeddings(_table_with(table, rows))
        yield


def token_expansions(components: PipelineComponents, tokenizer: Any) -> dict[int, list[int]]:
    """Id of a token with several vectors -> the ids of all of them, which replace it in a prompt.

    diffusers' ``maybe_convert_prompt`` does the same to the text.
    """
    numbers = [tokenizer.convert_tokens_to_ids(list(inversion.tokens)) for inversion in components.embeddings]
    return {several[0]: several for several in numbers if len(several) > 1}


def _table_with(table: Any, rows: Mapping[int, torch.Tensor]) -> torch.nn.Module:
    """The shared table with additional or replaced rows; the table itself is neither copied nor changed."""
    import torch

    class TableWithRows(torch.nn.Module):
        @property
        def weight(self) -> torch.Tensor:
            return table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            found = table(ids.clamp(max=table.weight.shape[0] - 1))
            for number, row in rows.items():
                found = torch.where((ids == number)[..., None], row.to(found), found)
            return found

    return TableWithRows()


def _with_tokens(tokenizer: Any, inversions: Sequence[TextualInversion], source: str) -> Any:
    """A copy of ``tokenizer`` that knows the tokens of all ``inversions``."""
    known = set(tokenizer.get_vocab())
    added: list[str] = []
    for inversion in inversions:
        taken = [token for token in (*inversion.tokens, f"{inversion.token}_1") if token in known]
        if taken:
            raise RelayError(
                f"token: {source} already knows {taken[0]!r}. Enter another word in token that does not occur in ordinary text."
            )
        added += inversion.tokens
        known |= set(inversion.tokens)
    copied = copy.deepcopy(tokenizer)
    copied.add_tokens(added)
    return copied


def _for_encoders(
    vectors: Mapping[str, torch.Tensor], components: PipelineComponents, title: str
) -> dict[str, torch.Tensor]:
    """Text encoder component -> its vectors, checked for the encoder's width and the range of its dtype."""
    import torch

    encoders = components.text_encoders
    fits = {name: components[name].get_input_embeddings().weight.shape[-1] for name in encoders}
    if set(vectors) <= set(SDXL_KEYS):
        by_encoder = {SDXL_KEYS[key]: tensor for key, tensor in vectors.items()}
    else:
        by_encoder = dict.fromkeys(encoders[:1], next(iter(vectors.values())))
    widths = {name: tensor.shape[1] for name, tensor in by_encoder.items()}
    # SDXL's first encoder has the width of SD 1.x. SDXL's refiner only has the second encoder.
    too_many = "text_encoder_2" in by_encoder and "text_encoder_2" not in encoders
    if too_many or any(widths.get(name) != width for name, width in fits.items()):
        kind = (
            "SDXL"
            if set(vectors) == set(SDXL_KEYS)
            else KNOWN_WIDTHS.get(next(iter(widths.values())), "another kind of model")
        )
        raise RelayError(
            f"embedding: {title} has vectors of width {', '.join(map(str, widths.values()))}, made for {kind}, but the text encoders of "
            f"{components.source} ({components.family.title}) read {' and '.join(map(str, fits.values()))}. Use one that was trained for this kind of model."
        )
    for name in encoders:
        dtype, largest = components[name].dtype, float(by_encoder[name].abs().max())
        if largest > torch.finfo(dtype).max:  # it would be infinite there
            raise RelayError(
                f"embedding: {title} has values up to {largest:.3g}, but {components.source} in {str(dtype).removeprefix('torch.')} only reaches "
                f"{torch.finfo(dtype).max:.5g}. Its training went wrong: use another one."
            )
    return {name: by_encoder[name] for name in encoders}


def _tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")
