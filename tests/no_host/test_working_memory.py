"""The formulas for working memory against the real use of small models: never less, and at most twice as much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.base.memory_size import module_bytes
from diffusers_relay.pipelines.control.units import ControlNetUnit
from diffusers_relay.pipelines.device import working_memory as formulas
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.model.laws import Guidance
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from relay_dev.memory_peak import peak_of_run
from support.without_host import CountingOffload, ListeningMonitor, Runtime, encode, load

FROM, TO = 1.0, 2.0
SIDE = 256
"""Pixels. At smaller sizes, the parts that don't grow with the picture (time and text) weigh too much."""


def covers(formula: int, call: Callable[[], Any]) -> None:
    peak = peak_of_run(call)
    assert FROM * peak <= formula <= TO * peak, (formula, peak, formula / peak)


@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "kandinsky_decoder"])
def test_decoding_and_encoding(name: str) -> None:
    model = load(name)
    vae: Any = model[model.family.autoencoder or ""]
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    extra = {"force_not_quantize": True} if name == "kandinsky_decoder" else {}
    latent, pixels = torch.randn(1, 4, SIDE // factor, SIDE // factor), torch.randn(1, 3, SIDE, SIDE)
    covers(formulas.decode_bytes(vae, SIDE**2, torch.float32), lambda: vae.decode(latent, **extra))
    covers(formulas.encode_bytes(vae, SIDE**2, torch.float32), lambda: vae.encode(pixels))


def test_a_decoding_in_tiles_needs_no_more_than_its_tiles() -> None:
    vae = load("sd15")["vae"]
    whole, tiled = (formulas.decode_bytes(vae, 2048**2, torch.float32, tiled) for tiled in (False, True))
    assert tiled < whole / 4
    assert tiled > formulas.decode_bytes(vae, 512**2, torch.float32)


def test_a_cast_up_autoencoder_grows() -> None:
    half = load("sd15", torch.float16)["vae"]
    in_half, in_full = (formulas.decode_bytes(half, SIDE**2, dtype) for dtype in (torch.float16, torch.float32))
    assert in_full == 2 * in_half + module_bytes([half])


@pytest.mark.parametrize(
    ("name", "rows"), [("sd15", 2), ("sdxl_base", 2), ("sdxl_refiner", 1), ("kandinsky_decoder", 2)]
)
def test_a_step_of_the_denoiser(name: str, rows: int) -> None:
    unet: Any = load(name)["unet"]
    config, side = unet.config, SIDE // 4
    sample = torch.randn(rows, config.in_channels, side, side)
    text, added = torch.randn(rows, 77, max_of(config.cross_attention_dim)), None
    if config.addition_embed_type == "image":
        text, added = None, {"image_embeds": torch.randn(rows, config.encoder_hid_dim)}
    elif config.addition_embed_type == "text_time":
        ids = 5 if name == "sdxl_refiner" else 6
        width = config.projection_class_embeddings_input_dim - ids * config.addition_time_embed_dim
        added = {"text_embeds": torch.randn(rows, width), "time_ids": torch.randn(rows, ids)}
    covers(
        formulas.unet_bytes(unet, rows=rows, latent_pixels=side**2),
        lambda: unet(sample, 1, text, added_cond_kwargs=added),
    )


@pytest.mark.parametrize("tokens", [154, 333])
@pytest.mark.parametrize("options", [{}, {"dual_attention_layers": (0, 1), "qk_norm": "rms_norm"}], ids=["3", "3.5"])
@pytest.mark.parametrize("side", [32, 64])
def test_a_step_of_a_joint_transformer(side: int, options: dict[str, Any], tokens: int) -> None:
    from diffusers import SD3Transformer2DModel

    wide = {"num_attention_heads": 6, "caption_projection_dim": 384, "joint_attention_dim": 1024}
    model = SD3Transformer2DModel(num_layers=3, sample_size=64, **wide, **options).eval()
    covers(
        formulas.joint_transformer_bytes(model, rows=2, latent_pixels=side**2, text_tokens=tokens),
        lambda: model(
            torch.randn(2, 16, side, side), torch.randn(2, tokens, 1024), torch.randn(2, 2048), torch.ones(2)
        ),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_step_of_a_single_stream_transformer(dtype: torch.dtype) -> None:
    from diffusers import FluxTransformer2DModel

    wide = {"num_attention_heads": 3, "joint_attention_dim": 512, "pooled_projection_dim": 64}
    model = FluxTransformer2DModel(num_layers=2, num_single_layers=2, **wide).eval().to(dtype)
    patches, tokens = 400, 128
    covers(
        formulas.single_stream_bytes(model, rows=1, patches=patches, text_tokens=tokens),
        lambda: model(
            torch.randn(1, patches, 64, dtype=dtype),
            torch.randn(1, tokens, 512, dtype=dtype),
            torch.randn(1, 64, dtype=dtype),
            torch.ones(1, dtype=dtype),
            img_ids=torch.zeros(patches, 3),
            txt_ids=torch.zeros(tokens, 3),
        ),
    )


def test_guidance_in_two_calls_asks_for_its_batch_alone() -> None:
    model = load("sd15")
    asked = {}
    for guidance in Guidance:
        view = replace(model, family=replace(model.family, guidance=guidance))
        runtime = Runtime(AskingOffload(), ListeningMonitor())
        text_to_image(view, encode(view, "a"), TextToImageSettings(64, 64, 1, 1, 7.5, 0), runtime)
        [(_, asked[guidance])] = runtime.policy.asked  # type: ignore[attr-defined]
    for guidance, rows in ((Guidance.ONE_BATCH, 2), (Guidance.TWO_CALLS, 1)):
        assert asked[guidance] == formulas.unet_bytes(model["unet"], rows=rows, latent_pixels=latent_pixels(64))


def max_of(value: Any) -> int:
    return max(value) if isinstance(value, (list, tuple)) else value


class AskingOffload(CountingOffload):
    """Records the memory that each stage asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Stage, int]] = []

    def on_device(self, stage: Stage, modules: Any, working_bytes: int = 0) -> Any:
        self.asked.append((stage, working_bytes))
        return super().on_device(stage, modules, working_bytes)


def asked_by_a_run(guidance_scale: float = 7.5, batch_size: int = 1, control: tuple[ControlNetUnit, ...] = ()) -> int:
    model = load("sd15")
    runtime = Runtime(AskingOffload(), ListeningMonitor())
    settings = TextToImageSettings(64, 64, batch_size=batch_size, steps=1, guidance_scale=guidance_scale, seed=0)
    text_to_image(model, encode(model, "a"), settings, runtime, control=control)
    [(stage, bytes_)] = runtime.policy.asked  # type: ignore[attr-defined]
    assert stage is Stage.DENOISE
    return bytes_


def test_a_run_asks_for_its_batch_and_its_guidance() -> None:
    one = asked_by_a_run(guidance_scale=1.0)
    assert one == formulas.unet_bytes(load("sd15")["unet"], rows=1, latent_pixels=latent_pixels(64))
    weight = 2 * 4 * max(w.numel() for w in load("sd15")["unet"].parameters())
    assert asked_by_a_run() == pytest.approx(2 * one - weight, abs=2)
    assert asked_by_a_run(batch_size=3) == pytest.approx(6 * one - 5 * weight, abs=6)


def latent_pixels(side: int) -> int:
    return (side // 2 ** (len(load("sd15")["vae"].config.block_out_channels) - 1)) ** 2


def test_every_stage_asks() -> None:
    from diffusers_relay.pipelines.latents.encode_decode import decode
    from diffusers_relay.pipelines.latents.encode_decode import encode as encode_picture
    from diffusers_relay.weighting.compel_encoder import encode_prompt

    model, policy = load("sd15"), AskingOffload()
    encode_prompt(model, "a cat", "", syntax="compel", runtime=Runtime(policy, ListeningMonitor()))
    runtime = Runtime(policy, ListeningMonitor())
    latents = encode_picture(model, torch.zeros(1, 64, 64, 3), 0, runtime)
    decode(model, latents, False, runtime)
    assert [stage for stage, _ in policy.asked] == [Stage.TEXT, Stage.VAE, Stage.VAE]
    assert all(asked > 0 for _, asked in policy.asked)
