"""Small models with random weights and the real diffusers and transformers classes, for the tests and the demo.

`python -m small_models.folders FOLDER` makes all of them. Their layouts, configs and flags are the published models'; only the
widths and depths differ. Their native picture size is 64 x 64.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .finetunes import make_finetune, make_fp16_copy, make_pickle_copy
from .flux import make_flux
from .inpainting import make_inpaint
from .kandinsky_depth import make_kandinsky_depth
from .parts import (
    BIG_TEXT_ENCODER_SEED,
    DDPM,
    EULER,
    IMAGE_EMBED_WIDTH,
    PNDM,
    TEXT_WIDTH,
    UNCLIP,
    image_conditions,
    make_autoencoder,
    make_sdxl_autoencoder,
    make_sdxl_unet,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    save,
    scheduler,
    text_conditions,
)
from .stable_diffusion_3 import make_sd3
from .upscalers import make_x2_upscaler, make_x4_upscaler
from .weights import calibrate_movq, fit_unet, random_module


def make_sd15(folder: Path, *, seed: int = 5113) -> Path:
    from diffusers import StableDiffusionPipeline

    tokenizer, vocab_size = make_tokenizer(folder / "tokenizer")
    unet = make_unet(seed + 1, cross_attention_dim=TEXT_WIDTH)
    fit_unet(unet, scheduler(PNDM), seed, text_conditions(TEXT_WIDTH))
    pipeline = StableDiffusionPipeline(
        vae=make_autoencoder(seed, scaling_factor=0.18215),
        text_encoder=make_text_encoder(seed + 2, vocab_size, act="quick_gelu"),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(PNDM),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return save(pipeline, folder, PNDM)


def make_sdxl_base(folder: Path, *, seed: int = 6217) -> Path:
    from diffusers import StableDiffusionXLPipeline

    tokenizer, vocab_size = make_tokenizer(folder / "tokenizer")
    tokenizer_2, _ = make_tokenizer(folder / "tokenizer_2", pad_token="!")
    unet = make_sdxl_unet(seed + 1, cross_attention_dim=2 * TEXT_WIDTH, time_ids=6)
    pipeline = StableDiffusionXLPipeline(
        vae=make_sdxl_autoencoder(),
        text_encoder=make_text_encoder(seed + 2, vocab_size, act="quick_gelu"),
        text_encoder_2=make_text_encoder(BIG_TEXT_ENCODER_SEED, vocab_size, projected=TEXT_WIDTH),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=scheduler(EULER),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    return save(pipeline, folder, EULER)


def make_sdxl_refiner(folder: Path, *, seed: int = 6421) -> Path:
    """The refiner has the base's VAE and second text encoder, without a first one."""
    from diffusers import StableDiffusionXLImg2ImgPipeline

    tokenizer_2, vocab_size = make_tokenizer(folder / "tokenizer_2", pad_token="!")
    unet = make_sdxl_unet(seed + 1, cross_attention_dim=TEXT_WIDTH, time_ids=5)
    pipeline = StableDiffusionXLImg2ImgPipeline(
        vae=make_sdxl_autoencoder(),
        text_encoder=None,
        text_encoder_2=make_text_encoder(BIG_TEXT_ENCODER_SEED, vocab_size, projected=TEXT_WIDTH),
        tokenizer=None,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=scheduler(EULER),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    return save(pipeline, folder, EULER)


def make_kandinsky_prior(folder: Path, *, seed: int = 8039) -> Path:
    from diffusers import KandinskyV22PriorPipeline, PriorTransformer
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    tokenizer, vocab_size = make_tokenizer(folder / "tokenizer")
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=IMAGE_EMBED_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        hidden_act="gelu",
    )
    prior = random_module(
        lambda: PriorTransformer(
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=2,
            embedding_dim=IMAGE_EMBED_WIDTH,
            additional_embeddings=4,
        ),
        seed,
    )
    pipeline = KandinskyV22PriorPipeline(
        prior=prior,
        image_encoder=random_module(lambda: CLIPVisionModelWithProjection(vision), seed + 1),
        text_encoder=make_text_encoder(seed + 2, vocab_size, width=IMAGE_EMBED_WIDTH, projected=IMAGE_EMBED_WIDTH),
        tokenizer=tokenizer,
        scheduler=scheduler(UNCLIP),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
    )
    return save(pipeline, folder, UNCLIP)


def make_kandinsky_decoder(folder: Path, *, seed: int = 8243) -> Path:
    from diffusers import KandinskyV22Pipeline, UNet2DConditionModel, VQModel

    unet = random_module(
        lambda: UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=8,
            addition_embed_type="image",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            norm_num_groups=8,
            encoder_hid_dim=IMAGE_EMBED_WIDTH,
            encoder_hid_dim_type="image_proj",
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=16,
            resnet_time_scale_shift="scale_shift",
        ),
        seed,
    )
    fit_unet(unet, scheduler(DDPM), seed, image_conditions)
    movq = random_module(
        lambda: VQModel(
            block_out_channels=(32, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=4,
            num_vq_embeddings=128,
            vq_embed_dim=4,
            norm_num_groups=32,  # its spatial norm always has 32 groups
            norm_type="spatial",
        ),
        seed + 1,
    )
    calibrate_movq(movq, seed)
    folder = save(KandinskyV22Pipeline(unet=unet, scheduler=scheduler(DDPM), movq=movq), folder, DDPM)
    # the entry in the published decoder's model card from which diffusers' combined pipelines find the prior
    card = "---\nprior:\n- kandinsky-community/kandinsky-2-2-prior\ntags:\n- text-to-image\n- kandinsky\n---\nSmall, with random weights.\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def make_x4_vae(folder: Path, *, seed: int = 9127) -> Path:
    """A VAE like the x4 upscaler's: factor 4, so three levels, with its own scaling factor."""
    make_autoencoder(seed, scaling_factor=0.08333, widths=(8, 16, 16), norm_num_groups=4).save_pretrained(folder)
    return folder


def make_all(folder: Path) -> dict[str, Path]:
    """Makes every small model, each in its own subfolder of `folder`. Returns {name: folder}."""
    folder = Path(folder)
    made = {
        "sd15": make_sd15(folder / "sd15"),
        "sdxl_base": make_sdxl_base(folder / "sdxl_base"),
        "sdxl_refiner": make_sdxl_refiner(folder / "sdxl_refiner"),
        "kandinsky_prior": make_kandinsky_prior(folder / "kandinsky_prior"),
        "kandinsky_decoder": make_kandinsky_decoder(folder / "kandinsky_decoder"),
        "x4_vae": make_x4_vae(folder / "x4_vae"),
    }
    made["x2_upscaler"] = make_x2_upscaler(folder / "x2_upscaler", made["sd15"])
    made["x4_upscaler"] = make_x4_upscaler(folder / "x4_upscaler", made["x4_vae"])
    made["kandinsky_depth"] = make_kandinsky_depth(folder / "kandinsky_depth", made["kandinsky_decoder"])
    made["sd3"] = make_sd3(folder / "sd3")
    made["sd3_without_t5"] = make_sd3(folder / "sd3_without_t5", t5=False)
    made["flux_dev"] = make_flux(folder / "flux_dev")
    made["flux_schnell"] = make_flux(folder / "flux_schnell", dev=False)
    sd15 = made["sd15"]
    made["comic"] = make_finetune(sd15, folder / "comic", seed=1021)
    made["pixel"] = make_finetune(sd15, folder / "pixel", seed=1033)
    made["sd15_vae_decoder"] = make_finetune(sd15, folder / "sd15_vae_decoder", seed=1049, change=(), vae="decoder")
    made["sd15_vae_moved"] = make_finetune(sd15, folder / "sd15_vae_moved", seed=1061, change=(), vae="moved")
    made["sd15_fp16"] = make_fp16_copy(sd15, folder / "sd15_fp16", variant="fp16")
    made["sd15_half"] = make_fp16_copy(sd15, folder / "sd15_half", variant=None)
    for name, plain in (
        ("sd15_inpaint", "sd15"),
        ("sdxl_inpaint", "sdxl_base"),
        ("kandinsky_inpaint", "kandinsky_decoder"),
    ):
        made[name] = make_inpaint(folder / name, made[plain])
    made["sd15_pickle"] = make_pickle_copy(sd15, folder / "sd15_pickle")
    return made


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m small_models.folders FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    started = time.perf_counter()
    for name, path in make_all(folder).items():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{name:20} {size / 1e6:6.1f} MB  {path}")
    print(f"{time.perf_counter() - started:.1f} s, {shutil.disk_usage(folder).free / 1e9:.0f} GB free")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
