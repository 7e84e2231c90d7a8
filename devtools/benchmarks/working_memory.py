"""Working memory: the formulas of pipelines/device/working_memory.py against the peaks of the real architectures.

    python devtools/benchmarks/working_memory.py   only the tensors, at full size, without computing (a minute)
    python devtools/benchmarks/working_memory.py --run      on the CPU, from the profiler's memory events, at small sizes (a few minutes)

The first way runs the models on the meta device and adds up the live tensors, with attention as a fused kernel. It doesn't
see the memory that kernels allocate themselves. The second does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from relay_dev.memory_peak import peak_of_run, peak_of_tensors
from relay_host.pack import prepare_pack

SD_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
MOVQ = {
    "block_out_channels": (128, 256, 256, 512),
    "down_block_types": (*("DownEncoderBlock2D",) * 3, "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * 3),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_type": "spatial",
    "num_vq_embeddings": 16384,
    "vq_embed_dim": 4,
}
UNETS: dict[str, dict[str, Any]] = {
    "SD1.5": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "SD2.1": {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
    "SDXL": {
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 10],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": True,
    },
    "SDXL refiner": {
        "cross_attention_dim": 1280,
        "attention_head_dim": [6, 12, 24, 24],
        "block_out_channels": (384, 768, 1536, 1536),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": 4,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2560,
        "use_linear_projection": True,
    },
    "Kandinsky 2.2": {
        "addition_embed_type": "image",
        "addition_embed_type_num_heads": 64,
        "attention_head_dim": 64,
        "block_out_channels": (384, 768, 1152, 1536),
        "cross_attention_dim": 768,
        "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
        "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "encoder_hid_dim": 1280,
        "encoder_hid_dim_type": "image_proj",
        "layers_per_block": 3,
        "out_channels": 8,
        "resnet_time_scale_shift": "scale_shift",
    },
}

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "SD3": {"num_attention_heads": 24, "caption_projection_dim": 1536},
    "SD3.5 medium": {
        "num_attention_heads": 24,
        "caption_projection_dim": 1536,
        "dual_attention_layers": (0, 1),
        "qk_norm": "rms_norm",
    },
    "SD3.5 large": {"num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"},
}
"""With three layers of their 24 or 38, which takes nothing off the peak: no layer's output stays."""
TEXT_TOKENS = (154, 333)
"""Of two CLIPs, without T5 and with it."""
FLUX_TOKENS = 512


@dataclass(frozen=True)
class Row:
    what: str
    formula: int
    measured: int

    def __str__(self) -> str:
        return f"{self.what:<44}{self.formula / 2**20:>10.0f}{self.measured / 2**20:>11.0f}{self.formula / self.measured:>8.2f}"


def rows(device: str, peak: Callable[[Callable[[], Any]], int], sides: tuple[int, ...]) -> Iterator[Row]:
    import diffusers

    from diffusers_relay.pipelines.device import working_memory as formulas

    with torch.device(device):
        for title, vae in (("SD VAE", diffusers.AutoencoderKL(**SD_VAE)), ("MoVQ", diffusers.VQModel(**MOVQ))):
            extra = {} if title == "SD VAE" else {"force_not_quantize": True}
            vae.eval()
            for side in sides:
                height, width = side, side + side // 2
                pixels = height * width
                latent = (1, 4, height // 8, width // 8)
                yield Row(
                    f"{title} decode {width}x{height}",
                    formulas.decode_bytes(vae, pixels, torch.float32),
                    peak(lambda: vae.decode(torch.randn(latent), **extra)),  # noqa: B023
                )
                yield Row(
                    f"{title} encode {width}x{height}",
                    formulas.encode_bytes(vae, pixels, torch.float32),
                    peak(lambda: vae.encode(torch.randn(1, 3, height, width))),  # noqa: B023
                )
        for title, config in UNETS.items():
            unet = diffusers.UNet2DConditionModel(**config).eval()
            for side in sides:
                yield unet_row(title, unet, side, peak)
            if title == "SD1.5":
                yield controlnet_row(unet, sides[0], peak)
        for title, config in TRANSFORMERS.items():
            transformer = diffusers.SD3Transformer2DModel(num_layers=3, pos_embed_max_size=192, **config).eval()
            for side in sides:
                for tokens in TEXT_TOKENS:
                    yield transformer_row(title, transformer, side, tokens, peak)
        flux = diffusers.FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True).eval()
        for side in sides:
            yield flux_row(flux, side, peak)


def flux_row(transformer: Any, side: int, peak: Callable[[Callable[[], Any]], int]) -> Row:
    """With two blocks of each kind of their 19 and 38."""
    from diffusers_relay.pipelines.device import working_memory as formulas

    config, patches = transformer.config, (side // 16) ** 2

    def call() -> None:
        transformer(
            hidden_states=torch.randn(1, patches, config.in_channels),
            encoder_hidden_states=torch.randn(1, FLUX_TOKENS, config.joint_attention_dim),
            pooled_projections=torch.randn(1, config.pooled_projection_dim),
            timestep=torch.ones(1),
            guidance=torch.ones(1),
            txt_ids=torch.zeros(FLUX_TOKENS, 3),
            img_ids=torch.zeros(patches, 3),
        )

    return Row(
        f"Flux.1 denoise {side}x{side}",
        formulas.single_stream_bytes(transformer, rows=1, patches=patches, text_tokens=FLUX_TOKENS),
        peak(call),
    )


def transformer_row(
    title: str, transformer: Any, side: int, tokens: int, peak: Callable[[Callable[[], Any]], int]
) -> Row:
    from diffusers_relay.pipelines.device import working_memory as formulas

    config, latent_side = transformer.config, side // 8

    def call() -> None:
        sample = torch.randn(2, config.in_channels, latent_side, latent_side)
        text, pooled = torch.randn(2, tokens, config.joint_attention_dim), torch.randn(2, config.pooled_projection_dim)
        transformer(sample, text, pooled, torch.ones(2))

    return Row(
        f"{title} denoise {side}x{side}, {tokens} tokens, 2 rows",
        formulas.joint_transformer_bytes(transformer, rows=2, latent_pixels=latent_side**2, text_tokens=tokens),
        peak(call),
    )


def unet_row(title: str, unet: Any, side: int, peak: Callable[[Callable[[], Any]], int]) -> Row:
    from diffusers_relay.pipelines.device import working_memory as formulas

    latent_pixels = (side // 8) ** 2
    return Row(
        f"{title} denoise {side}x{side}, 2 rows",
        formulas.unet_bytes(unet, rows=2, latent_pixels=latent_pixels),
        peak(lambda: forward(unet, side)),
    )


def controlnet_row(unet: Any, side: int, peak: Callable[[Callable[[], Any]], int]) -> Row:
    from diffusers import ControlNetModel

    from diffusers_relay.pipelines.device import working_memory as formulas

    net = ControlNetModel.from_unet(unet).eval()

    def call() -> None:
        sample, text = torch.randn(2, 4, side // 8, side // 8), torch.randn(2, 77, 768)
        down, mid = net(sample, 1, text, torch.randn(2, 3, side, side), return_dict=False)
        unet(sample, 1, text, down_block_additional_residuals=down, mid_block_additional_residual=mid)

    latent_pixels = (side // 8) ** 2
    return Row(
        f"SD1.5 with a ControlNet {side}x{side}, 2 rows",
        formulas.unet_bytes(unet, rows=2, latent_pixels=latent_pixels, controlnets=1),
        peak(call),
    )


def forward(unet: Any, side: int) -> None:
    config = unet.config
    sample = torch.randn(2, config.in_channels, side // 8, side // 8)
    if config.addition_embed_type == "image":
        unet(sample, 1, None, added_cond_kwargs={"image_embeds": torch.randn(2, config.encoder_hid_dim)})
        return
    added = None
    if config.addition_embed_type == "text_time":
        ids = (config.projection_class_embeddings_input_dim - 1280) // config.addition_time_embed_dim
        added = {"text_embeds": torch.randn(2, 1280), "time_ids": torch.randn(2, ids)}
    unet(sample, 1, torch.randn(2, 77, config.cross_attention_dim), added_cond_kwargs=added)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="compute, on the CPU")
    parser.add_argument(
        "--sides", type=int, nargs="+", help="pixels, multiples of 64 (default 512 1024; --run: 256 512)"
    )
    arguments = parser.parse_args()
    prepare_pack()
    sides = tuple(arguments.sides or ((256, 512) if arguments.run else (512, 1024)))
    print(f"{'MB':<44}{'formula':>10}{'measured':>11}{'ratio':>8}")
    device, peak = ("cpu", peak_of_run) if arguments.run else ("meta", peak_of_tensors)
    found = []
    for row in rows(device, peak, sides):
        print(row, flush=True)
        found.append(row)
    return 1 if any(row.formula < row.measured for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
