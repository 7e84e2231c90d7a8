"""A small Stable Diffusion 3: two CLIPs and T5, a transformer of flow matching, a VAE of 16 channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from .parts import TEXT_WIDTH, make_text_encoder, make_tokenizer, save, scheduler
from .tokenizer import WORDS
from .weights import PICTURE_STD, POSTERIOR_LOGVAR, random_module, scale_output, smooth_picture

FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": False,
}
WIDTH = 96
"""Of a token; the two CLIPs side by side are narrower and filled up."""
END, PAD, UNKNOWN, SPACE = "</s>", "<pad>", "<unk>", "\u2581"


def make_sd3(folder: Path, *, t5: bool = True, seed: int = 7703) -> Path:
    """`t5`: without it, as it is published for small machines, the last text encoder and its tokenizer are missing."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    tokenizer, vocab_size = make_tokenizer(folder / "tokenizer")
    tokenizer_2, _ = make_tokenizer(folder / "tokenizer_2", pad_token="!")
    transformer = random_module(
        lambda: SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=4,
            caption_projection_dim=64,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=2 * TEXT_WIDTH,
            pos_embed_max_size=32,
            qk_norm="rms_norm",
        ),
        seed + 1,
    )
    _fit_velocity(transformer, seed)
    pipeline = StableDiffusion3Pipeline(
        vae=make_sd3_autoencoder(seed),
        text_encoder=make_text_encoder(seed + 2, vocab_size, act="quick_gelu", projected=TEXT_WIDTH),
        text_encoder_2=make_text_encoder(seed + 3, vocab_size, projected=TEXT_WIDTH),
        text_encoder_3=make_t5(seed + 4) if t5 else None,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=make_t5_tokenizer(folder / "tokenizer_3") if t5 else None,
        transformer=transformer,
        scheduler=scheduler(FLOW),
    )
    return save(pipeline, folder, FLOW)


def make_sd3_autoencoder(seed: int) -> Any:
    from diffusers import AutoencoderKL

    widths = (16, 16, 32, 32)
    vae = random_module(
        lambda: AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=16,
            norm_num_groups=8,
            sample_size=64,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        seed,
    )
    with torch.no_grad():
        wanted, layer = 1 / vae.config.scaling_factor, vae.encoder.conv_out
        made = vae.encoder(smooth_picture(seed))[:, :16]
        layer.weight[:16] *= wanted / made.std()
        layer.bias[:16] = layer.bias[:16] * wanted / made.std() + vae.config.shift_factor
        layer.weight[16:] *= 0.02
        layer.bias[16:] = POSTERIOR_LOGVAR
        latents = wanted * torch.randn(1, 16, 8, 8, generator=torch.Generator("cpu").manual_seed(seed))
        scale_output(vae.decoder.conv_out, vae.decode(latents).sample, PICTURE_STD)
    return vae


def make_t5(seed: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(_pieces()),
        d_model=WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    encoder = random_module(lambda: T5EncoderModel(config), seed)
    encoder.encoder.embed_tokens.weight = encoder.shared.weight
    return encoder


def make_t5_tokenizer(folder: Path) -> Any:
    from transformers import T5TokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ending = {"SpecialToken": {"id": END, "type_id": 0}}
    text = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": one, **special} for i, one in enumerate((PAD, END, UNKNOWN))],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, ending],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, ending, {"Sequence": {"id": "B", "type_id": 0}}, ending],
            "special_tokens": {END: {"id": END, "ids": [1], "tokens": [END]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": _pieces(), "byte_fallback": False},
    }
    settings = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 0}
    settings |= {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    (folder / "tokenizer.json").write_text(json.dumps(text), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return T5TokenizerFast.from_pretrained(folder)


def _pieces() -> list[tuple[str, float]]:
    """Each of WORDS is one piece; every other text of printable ASCII is written in letters."""
    words = [SPACE + word for word in dict.fromkeys(WORDS.split())]
    letters = [SPACE, *map(chr, range(33, 127))]
    rare = [(letter, -12.0) for letter in letters]
    return [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0), *((word, -6.0) for word in words), *rare]


@torch.no_grad()
def _fit_velocity(transformer: Any, seed: int, batch: int = 64) -> None:
    """Fits the last layer, by least squares, to predict noise - clean. See weights.fit_unet."""
    generator = torch.Generator("cpu").manual_seed(seed)
    coarse = torch.randn(batch, 16, 3, 3, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bicubic")
    noise = torch.randn(clean.shape, generator=generator)
    sigmas = torch.linspace(0.02, 1, batch)
    noisy = (1 - sigmas)[:, None, None, None] * clean + sigmas[:, None, None, None] * noise
    seen: list[torch.Tensor] = []
    layer = transformer.proj_out
    hook = layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    transformer(
        hidden_states=noisy,
        timestep=1000 * sigmas,
        encoder_hidden_states=0.3 * torch.randn(batch, 20, WIDTH, generator=generator),
        pooled_projections=torch.randn(batch, 2 * TEXT_WIDTH, generator=generator),
    )
    hook.remove()
    features = seen[0].flatten(0, 1)
    patches = (noise - clean).unfold(2, 2, 2).unfold(3, 2, 2)  # [B, C, h, w, 2, 2]
    values = patches.permute(0, 2, 3, 4, 5, 1).reshape(len(features), -1)
    mean = features.mean(0)
    centred = features - mean
    ridge = 0.01 * len(features) * torch.eye(features.shape[1])
    weight = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ values)
    layer.weight.copy_(weight.T)
    layer.bias.copy_(values.mean(0) - mean @ weight)
