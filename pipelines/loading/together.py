"""Checks that the components of a model fit together: a folder may contain parts of several models."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ..base.errors import RelayError
from ..model.family import ModelFamily
from ..model.laws import StepMemory
from .processor_check import pixels
from .tokenizer_files import LONGEST_PROMPT

POOLED_WIDTH = {"CLIPTextModel": "hidden_size", "CLIPTextModelWithProjection": "projection_dim"}
"""Class of a text encoder -> the entry of its config with the width of its pooled embedding."""
TAKE_ONE = "They belong to different models: use one complete copy of the model."


def fitted_together(family: ModelFamily, modules: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The modules. A tokenizer without a length limit is replaced by a copy with the limit of its encoder.

    Raises:
        RelayError: two of them can't work together.
    """
    fitted = dict(modules)
    for name in family.text_encoders:
        if name not in modules:
            continue  # optional in this family
        tokenizer = name.replace("text_encoder", "tokenizer")
        fitted[tokenizer] = _fitted_tokenizer(modules[tokenizer], modules[name], tokenizer, name, where)
    if "image_processor" in modules:
        _check_pictures(modules, where)
    denoiser = modules[family.denoiser]
    if family.memory is StepMemory.UNET and "cross_attention_dim" in denoiser.config:
        _check_unet(family, denoiser, modules, where)
    _check_joint_width(denoiser, family, modules, where)
    if family.memory is not StepMemory.UNET:
        _check_transformer(denoiser, family, modules, where)
    return fitted


def _check_transformer(denoiser: Any, family: ModelFamily, modules: Mapping[str, Any], where: str) -> None:
    vae = modules[family.autoencoder or ""].config
    channels = (vae.get("latent_channels") or vae.get("z_dim")) * family.packed**2
    if denoiser.config.in_channels != channels:
        raise RelayError(
            f"{where}: its {family.denoiser} takes {denoiser.config.in_channels} channels, but a {family.title} {family.denoiser} takes {channels}. It is for "
            "another pipeline, such as filling, or following a depth map, which Diffusers Relay does not run."
        )
    pooled = denoiser.config.get("pooled_projection_dim")
    given = sum(
        getattr(modules[name].config, POOLED_WIDTH[family.components[name].names[0]])
        for name in family.text_encoders
        if family.components[name].names[0] in POOLED_WIDTH
    )
    if pooled is not None and given != pooled:
        raise RelayError(
            f"{where}: its {family.denoiser} reads a pooled embedding of width {pooled:,}, but its text encoders make {given:,}. {TAKE_ONE}"
        )


def _check_joint_width(denoiser: Any, family: ModelFamily, modules: Mapping[str, Any], where: str) -> None:
    """A transformer that reads text tokens directly needs them in its own width; narrower ones of CLIP are padded, T5's are not."""
    width = denoiser.config.get("joint_attention_dim")
    if width is None:
        return
    for name in family.text_encoders:
        given = getattr(modules[name].config, "d_model", width) if name in modules else width
        if given != width:
            raise RelayError(
                f"{where}: its {family.denoiser} reads text of width {width:,}, but its {name} makes {given:,}. {TAKE_ONE}"
            )


def _fitted_tokenizer(tokenizer: Any, encoder: Any, name: str, encoder_name: str, where: str) -> Any:
    rows = encoder.get_input_embeddings().weight.shape[0]
    added = {str(token) for token in tokenizer.get_added_vocab()} - set(tokenizer.all_special_tokens)
    most = max((number for token, number in tokenizer.get_vocab().items() if token not in added), default=0)
    if most >= rows:
        raise RelayError(
            f"{where}: its {name} has a token with number {most:,}, but its {encoder_name} only has {rows:,} tokens. {TAKE_ONE}"
        )
    longest, positions = tokenizer.model_max_length, getattr(encoder.config, "max_position_embeddings", None)
    if positions is None or longest <= positions:  # T5 has no positions, only distances
        return tokenizer
    if longest <= LONGEST_PROMPT:
        raise RelayError(
            f"{where}: its {name} allows {longest:,} tokens (model_max_length in {name}/tokenizer_config.json), but its {encoder_name} reads "
            f"{positions}. Write {positions} there, or use one complete copy of the model."
        )
    limited = copy.deepcopy(tokenizer)
    limited.model_max_length = positions
    return limited


def _check_pictures(modules: Mapping[str, Any], where: str) -> None:
    height, width = pixels(modules["image_processor"]).shape[-2:]
    side = modules["image_encoder"].config.image_size
    if (height, width) != (side, side):
        raise RelayError(
            f"{where}: its image_processor makes images of {width} x {height}, but its image_encoder reads {side} x {side}. {TAKE_ONE}"
        )


def check_noise_level(modules: Mapping[str, Any], most: object, where: str) -> None:
    """Checks that the model's highest noise level is one of the steps of the scheduler that adds the noise."""
    steps = modules["low_res_scheduler"].config.num_train_timesteps
    if isinstance(most, int) and most >= steps:
        raise RelayError(
            f"{where}: max_noise_level in model_index.json is {most}, but its low_res_scheduler has {steps} steps, which allows 0 to {steps - 1}. {TAKE_ONE}"
        )


def _check_unet(family: ModelFamily, unet: Any, modules: Mapping[str, Any], where: str) -> None:
    config = unet.config
    embed_type = config.addition_embed_type
    if embed_type != family.unet_reads_beside:
        raise RelayError(
            f"{where}: its unet is not a {family.title} unet: addition_embed_type in unet/config.json is {embed_type!r}, but must be "
            f"{family.unet_reads_beside!r}. {TAKE_ONE}"
        )
    widths = config.cross_attention_dim
    widths = set(widths) if isinstance(widths, (list, tuple)) else {widths}
    encoders_width = sum(modules[name].config.hidden_size for name in family.text_encoders)
    if family.text_encoders and config.encoder_hid_dim is None and widths != {encoders_width}:
        raise RelayError(
            f"{where}: its unet reads embeddings of width {' and '.join(map(str, sorted(widths)))}, but its text encoders make {encoders_width}. {TAKE_ONE}"
        )
    if family.inpaints_plain_models:
        channels = modules[family.autoencoder or ""].config.latent_channels
        if config.in_channels not in (channels, 2 * channels + 1):
            raise RelayError(
                f"{where}: its unet takes {config.in_channels} channels, but a {family.title} unet takes {channels}, or {2 * channels + 1} for inpainting. "
                "It is for another pipeline, such as InstructPix2Pix or a depth model, which Diffusers Relay does not run."
            )
    learned = str(modules["scheduler"].config.get("variance_type")).startswith("learned")
    if learned and config.out_channels < 2 * config.in_channels and family.inpaints_plain_models:
        raise RelayError(
            f"{where}: its scheduler needs a variance from the unet (variance_type in scheduler/scheduler_config.json), but its unet does not predict one. {TAKE_ONE}"
        )
