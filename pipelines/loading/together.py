"""What is right in each component by itself, and has to fit the others: a model's folder may have been put together of several."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ..base.errors import RelayError
from ..model.family import ModelFamily
from .processor_check import pixels
from .tokenizer_files import LONGEST_PROMPT

TAKE_ONE = "They are of different models: take all of it from one copy."


def fitted_together(family: ModelFamily, modules: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The modules; a tokenizer that says no limit comes as a copy with the limit of its encoder.

    Raises:
        RelayError: two of them can't work together.
    """
    fitted = dict(modules)
    for name in family.text_encoders:
        if name not in modules:
            continue  # one that the family may lack
        tokenizer = name.replace("text_encoder", "tokenizer")
        fitted[tokenizer] = _fitted_tokenizer(modules[tokenizer], modules[name], tokenizer, name, where)
    if "image_processor" in modules:
        _check_pictures(modules, where)
    denoiser = modules[family.denoiser]
    if "cross_attention_dim" in denoiser.config:
        _check_unet(family, denoiser, modules, where)
    return fitted


def _fitted_tokenizer(tokenizer: Any, encoder: Any, name: str, encoder_name: str, where: str) -> Any:
    rows = encoder.get_input_embeddings().weight.shape[0]
    added = {str(token) for token in tokenizer.get_added_vocab()} - set(tokenizer.all_special_tokens)
    most = max((number for token, number in tokenizer.get_vocab().items() if token not in added), default=0)
    if most >= rows:
        raise RelayError(
            f"{where}: its {name} has a token with the number {most:,}, and its {encoder_name} has {rows:,} tokens. {TAKE_ONE}"
        )
    longest, positions = tokenizer.model_max_length, getattr(encoder.config, "max_position_embeddings", None)
    if positions is None or longest <= positions:  # T5 has no places: it looks at distances
        return tokenizer
    if longest <= LONGEST_PROMPT:
        raise RelayError(
            f"{where}: its {name} cuts a text at {longest:,} tokens (model_max_length in {name}/tokenizer_config.json), and its {encoder_name} reads "
            f"{positions}. Write {positions} there, or take both from one copy of the model."
        )
    limited = copy.deepcopy(tokenizer)
    limited.model_max_length = positions
    return limited


def _check_pictures(modules: Mapping[str, Any], where: str) -> None:
    height, width = pixels(modules["image_processor"]).shape[-2:]
    side = modules["image_encoder"].config.image_size
    if (height, width) != (side, side):
        raise RelayError(
            f"{where}: its image_processor makes pictures of {width} x {height}, and its image_encoder reads {side} x {side}. {TAKE_ONE}"
        )


def check_noise_level(modules: Mapping[str, Any], most: object, where: str) -> None:
    """That the most noise that a model says it takes is among the steps of the scheduler that adds it."""
    steps = modules["low_res_scheduler"].config.num_train_timesteps
    if isinstance(most, int) and most >= steps:
        raise RelayError(
            f"{where}: model_index.json says max_noise_level is {most}, and its low_res_scheduler has {steps} steps: 0 to {steps - 1} can be. {TAKE_ONE}"
        )


def _check_unet(family: ModelFamily, unet: Any, modules: Mapping[str, Any], where: str) -> None:
    config = unet.config
    asked = config.addition_embed_type
    if asked != family.unet_reads_beside:
        raise RelayError(
            f"{where}: its unet is not one of {family.title}: addition_embed_type in unet/config.json is {asked!r}, and there it is "
            f"{family.unet_reads_beside!r}. {TAKE_ONE}"
        )
    widths = config.cross_attention_dim
    widths = set(widths) if isinstance(widths, (list, tuple)) else {widths}
    given = sum(modules[name].config.hidden_size for name in family.text_encoders)
    if family.text_encoders and config.encoder_hid_dim is None and widths != {given}:
        raise RelayError(
            f"{where}: its unet reads texts of width {' and '.join(map(str, sorted(widths)))}, and its text encoders give {given}. {TAKE_ONE}"
        )
    if family.inpaints_plain_models:
        channels = modules[family.autoencoder or ""].config.latent_channels
        if config.in_channels not in (channels, 2 * channels + 1):
            raise RelayError(
                f"{where}: its unet takes {config.in_channels} channels, and one of {family.title} takes {channels}, or {2 * channels + 1} to inpaint. "
                "It is for another pipeline (InstructPix2Pix, a depth model and the like), which Diffusers Relay does not run."
            )
    learned = str(modules["scheduler"].config.get("variance_type")).startswith("learned")
    if learned and config.out_channels < 2 * config.in_channels and family.inpaints_plain_models:
        raise RelayError(
            f"{where}: its scheduler takes a variance from the unet (variance_type in scheduler/scheduler_config.json), which its unet does not give. {TAKE_ONE}"
        )
