"""After a training: saves sheets of pictures in .relay/tiny-world, and prints the judge's verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from relay_host.paths import WORK
from small_models.parts import scheduler

from . import pipelines
from .drawing import STYLES, TRIGGERS, cover_of, draw, draw_depth
from .evaluate import save_sheet, scenes_to_ask, score
from .ip_adapter import put_on
from .judge import agrees, edge_strength, look
from .kandinsky import picture_embeddings
from .scene import COLORS, SHAPES, Scene, moved, plain_caption
from .store import Store
from .tokenizer import tokenizer
from .training import pictures, scenes, to_array

SHEETS = WORK / "tiny-world"
ASKED = 32
STEPS = 20


@torch.no_grad()
def reconstructions(store: Store, name: str) -> None:
    """Pictures above, reconstructions below; prints the mean difference on a scale of 255."""
    vae = store.load(name)
    for size in (128, 512):
        shown = torch.cat([pictures(scenes(2, 5, two=0.5), size, style) for style in STYLES])
        if name == "movq":
            back = vae.decode(vae.encode(shown).latents, force_not_quantize=True).sample
        else:
            back = vae.decode(vae.encode(shown).latent_dist.mean).sample
        save_sheet(np.stack([to_array(one) for one in torch.cat([shown, back])]), SHEETS / f"{name}-{size}.png", 8)
        print(f"{name}: mean difference at {size}: {(back - shown).abs().mean() * 127.5:.2f} of 255", flush=True)


@torch.no_grad()
def towers(store: Store) -> None:
    """How often a picture is closer to its own caption than to 255 others."""
    asked = scenes(256, 9, two=0.2, empty=0)
    texts = [plain_caption(scene) for scene in asked]
    ids = tokenizer()(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    by_text = torch.nn.functional.normalize(store.load("text_g")(ids).text_embeds, dim=-1)
    by_picture = torch.nn.functional.normalize(picture_embeddings(store.load("picture_g"), asked).cpu(), dim=-1)
    found = (by_picture @ by_text.T).argmax(1).tolist()
    right = sum(texts[index] == text for index, text in zip(found, texts))
    print(f"clip: {right} of 256 pictures find their caption", flush=True)


def text_to_image(store: Store, name: str, style: str = "plain") -> None:
    pipeline = pipelines.stable_diffusion(store, name)
    _ask(name, pipeline, f", {TRIGGERS[style]}" if style in TRIGGERS else "")


def sdxl_base(store: Store) -> None:
    _ask("unet_sdxl_base", pipelines.sdxl_base(store), sizes=((512, ASKED), (1024, 8)))


def refiner(store: Store) -> None:
    """The distance of degraded pictures from the clean ones, before and after."""
    pipeline = pipelines.sdxl_refiner(store)
    asked = scenes_to_ask(8)
    clean = np.stack([draw(scene, 512) for scene in asked])
    spoilt = (clean + 0.12 * np.random.default_rng(0).standard_normal(clean.shape)).clip(0, 1).astype(np.float32)
    found = pipeline(
        [plain_caption(scene) for scene in asked],
        image=torch.from_numpy(spoilt).permute(0, 3, 1, 2),
        strength=0.2,
        num_inference_steps=25,
        guidance_scale=3.0,
        generator=_generators(8),
        output_type="np",
    ).images
    save_sheet(np.concatenate([spoilt, found]), SHEETS / "unet_sdxl_refiner.png")
    before, after = np.abs(spoilt - clean).mean(), np.abs(found - clean).mean()
    print(f"refiner: from clean pictures {before:.4f} before, {after:.4f} after", flush=True)


def kandinsky(store: Store, name: str = "unet_kandinsky") -> None:
    prior, decoder = pipelines.kandinsky_prior(store), pipelines.kandinsky_decoder(store, name)

    def paint(texts: Sequence[str], size: int) -> np.ndarray:
        positive, negative = prior(list(texts), num_inference_steps=25, generator=_generators(len(texts))).to_tuple()
        more = {}
        if name == "unet_kandinsky_depth":
            depth = np.stack([draw_depth(scene, size) for scene in scenes_to_ask(len(texts))])
            more["hint"] = torch.from_numpy(depth).permute(0, 3, 1, 2)
        found = decoder(
            image_embeds=positive,
            negative_image_embeds=negative,
            height=size,
            width=size,
            num_inference_steps=25,
            guidance_scale=4.0,
            generator=_generators(len(texts)),
            output_type="np",
            **more,
        )
        return np.asarray(found.images)

    for size, count in ((256, ASKED), (512, 8)):

        def ask(texts: Sequence[str], size: int = size) -> np.ndarray:
            return paint(texts, size)

        _print_score(
            name,
            size,
            count,
            score(ask, scenes_to_ask(count), SHEETS / f"{name}-{size}.png"),
        )


def kandinsky_inpainting(store: Store) -> None:
    """Repaints the middle of plain backgrounds with a thing."""
    prior = pipelines.kandinsky_prior(store)
    decoder = pipelines.kandinsky_decoder(store, "unet_kandinsky_inpainting")
    asked = scenes_to_ask(16)
    grounds, mask = _plain_grounds(asked)
    texts = [plain_caption(scene) for scene in asked]
    positive, negative = prior(texts, num_inference_steps=25, generator=_generators(16)).to_tuple()
    found = [
        decoder(
            image_embeds=positive[index : index + 1],
            negative_image_embeds=negative[index : index + 1],
            image=grounds[index : index + 1] * 2 - 1,
            mask_image=mask[:1],
            height=256,
            width=256,
            num_inference_steps=25,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(index),
            output_type="np",
        ).images[0]
        for index in range(16)
    ]
    _print_inpainted("unet_kandinsky_inpainting", np.stack(found), asked)


def _plain_grounds(asked: Sequence[Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    """The scenes' backgrounds, [count, 3, 256, 256] in 0..1, and a mask that keeps a rim."""
    grounds = np.stack([draw(replace(scene, things=()), 256) for scene in asked])
    mask = torch.zeros(len(asked), 1, 256, 256)
    mask[:, :, 32:224, 32:224] = 1
    return torch.from_numpy(grounds).permute(0, 3, 1, 2), mask


def _print_inpainted(name: str, found: np.ndarray, asked: Sequence[Scene]) -> None:
    save_sheet(found, SHEETS / f"{name}.png")
    colors = sum(agrees(look(picture), scene, colors_only=True) for picture, scene in zip(found, asked))
    right = sum(agrees(look(picture), scene) for picture, scene in zip(found, asked))
    print(f"{name}: {colors} of {len(asked)} have their colours, {right} the shape too", flush=True)


def controlnet(store: Store) -> None:
    """Paints with a depth map and measures how far the things are from their positions in it."""
    pipeline = pipelines.stable_diffusion(
        store, kind="StableDiffusionControlNetPipeline", controlnet=store.load("controlnet_depth")
    )
    for size, count in ((256, 16), (512, 8)):
        asked = scenes_to_ask(count)
        depth = torch.from_numpy(np.stack([draw_depth(scene, size) for scene in asked])).permute(0, 3, 1, 2)
        found = pipeline(
            [plain_caption(scene) for scene in asked],
            image=depth,
            num_inference_steps=STEPS,
            generator=_generators(count),
            output_type="np",
        ).images
        _compare_places(f"controlnet_depth-{size}", np.asarray(found), asked)


def _compare_places(name: str, found: np.ndarray, asked: Sequence[Scene]) -> None:
    """How far things are from where they were asked for, and how many are right."""
    save_sheet(found, SHEETS / f"{name}.png")
    off, overlaps = [], []
    for picture, scene in zip(found, asked):
        seen = look(picture).largest
        off.append(1.0 if seen is None else float(np.hypot(seen.x - scene.things[0].x, seen.y - scene.things[0].y)))
        cover = cover_of(scene.things[0], len(picture)) > 0.5
        ground = np.linalg.norm(picture - np.array(COLORS[scene.background]), axis=2)
        thing = np.linalg.norm(picture - np.array(COLORS[scene.things[0].color]), axis=2)
        overlaps.append(float((cover & (thing < ground)).sum() / (cover | (thing < ground)).sum()))
    right = sum(agrees(look(picture), scene) for picture, scene in zip(found, asked))
    print(
        f"{name}: things {np.median(off):.3f} of the side from the map's, overlap {np.mean(overlaps):.2f}, "
        f"{right} of {len(asked)} right",
        flush=True,
    )


def inpainting(store: Store) -> None:
    """Repaints the middle of plain backgrounds with a thing."""
    pipeline = pipelines.stable_diffusion(store, "unet_inpainting", "StableDiffusionInpaintPipeline")
    asked = scenes_to_ask(16)
    grounds, mask = _plain_grounds(asked)
    found = pipeline(
        [plain_caption(scene) for scene in asked],
        image=grounds,
        mask_image=mask,
        height=256,
        width=256,
        num_inference_steps=STEPS,
        strength=1.0,
        generator=_generators(16),
        output_type="np",
    ).images
    _print_inpainted("unet_inpainting", np.asarray(found), asked)


def x2(store: Store) -> None:
    _upscale("unet_x2", pipelines.x2_upscaler(store), 128, guidance_scale=0.0)


def x4(store: Store) -> None:
    _upscale("unet_x4", pipelines.x4_upscaler(store), 64, guidance_scale=4.0)


def _upscale(name: str, pipeline: Any, side: int, guidance_scale: float) -> None:
    """Upscales to 256, next to bicubic scaling and a drawing at that size."""
    asked = scenes_to_ask(8)
    small = pictures(asked, side)
    found = pipeline(
        [plain_caption(scene) for scene in asked],
        image=small / 2 + 0.5,
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        generator=_generators(len(asked)),
        output_type="np",
    ).images
    _compare(name, np.asarray(found), asked, small, 256)


def lora(store: Store) -> None:
    pipeline = pipelines.stable_diffusion(store)
    pipeline.load_lora_weights(str(store.file("lora_pixel").parent), weight_name=store.file("lora_pixel").name)
    _ask("lora_pixel", pipeline, f", {TRIGGERS['pixel']}", sizes=((256, 16),))


def embedding(store: Store) -> None:
    pipeline = pipelines.stable_diffusion(store)
    pipeline.load_textual_inversion(str(store.file("embedding_ember")))
    found = np.asarray(_painted(pipeline, ["a <ember>"] * 16, 256))
    save_sheet(found, SHEETS / "embedding_ember.png")
    seen = [look(picture) for picture in found]
    right = sum(one.background == "black" and one.largest is not None and one.largest.color == "red" for one in seen)
    print(f"embedding: {right} of 16 are red on black", flush=True)


@torch.no_grad()
def ip_adapter(store: Store) -> None:
    """Paints without a text what another picture shows; then its colours with another shape, which only the text names."""
    pipeline = pipelines.stable_diffusion(store, image_encoder=store.load("picture_g"))
    put_on(pipeline, load_file(store.file("ip_adapter")))
    shown = _large_things()
    wanted = [moved(scene, shape=SHAPE_ORDER[SHAPE_ORDER.index(scene.things[0].shape) - 1]) for scene in shown]
    embeddings = picture_embeddings(pipeline.image_encoder, shown)
    given = [torch.stack([torch.zeros_like(one), one])[:, None] for one in embeddings]
    for name, texts, asked in (
        ("alone", [""] * len(shown), shown),
        ("with a shape", [f"a large {scene.things[0].shape}" for scene in wanted], wanted),
    ):
        found = np.concatenate(  # a pipeline gives all pictures to all texts of a batch
            [
                _painted(pipeline, [text], 256, guidance_scale=4.0, ip_adapter_image_embeds=[one])
                for text, one in zip(texts, given)
            ]
        )
        save_sheet(found, SHEETS / f"ip_adapter-{name.replace(' ', '-')}.png", 10)
        seen = [look(picture) for picture in found]
        colors = sum(agrees(one, scene, colors_only=True) for one, scene in zip(seen, asked))
        right = sum(agrees(one, scene) for one, scene in zip(seen, asked))
        print(f"ip adapter {name}: {colors} of {len(asked)} have the colours, {right} the shape too", flush=True)


def lcm_lora(store: Store) -> None:
    """Pictures in four LCM steps, with the LoRA and by its teacher alone; and the teacher's in 20 of another scheduler."""
    pipeline = pipelines.stable_diffusion(store)
    asked = _large_things()
    texts = [plain_caption(scene) for scene in asked]

    def paint(name: str, size: int, count: int, **settings: Any) -> None:
        found = _painted(pipeline, texts[:count], size, **settings)
        save_sheet(found, SHEETS / f"lora_lcm-{name.replace(' ', '-')}-{size}.png", 10)
        seen = [look(picture) for picture in found]
        right = sum(agrees(one, scene) for one, scene in zip(seen, asked))
        edges = np.mean([edge_strength(picture) for picture in found])
        overlap = np.mean([0 if one.largest is None else one.largest.overlap for one in seen])
        print(
            f"lcm lora, {name} at {size}: {right} of {count} right, edges {edges:.3f}, shapes {overlap:.3f}", flush=True
        )

    for size, count in ((256, 20), (512, 8)):
        paint("teacher", size, count, guidance_scale=3.0)
    pipeline.scheduler = scheduler({**pipeline.scheduler.config, "_class_name": "LCMScheduler"})
    for name in ("teacher as lcm", "lcm"):
        for size, count in ((256, 20), (512, 8)):
            paint(name, size, count, num_inference_steps=4, guidance_scale=1.0)
        pipeline.load_lora_weights(str(store.file("lora_lcm").parent), weight_name=store.file("lora_lcm").name)


def _large_things() -> list[Scene]:
    """20 scenes with one large thing each."""
    return [scene for scene in scenes_to_ask(64) if scene.things[0].size == "large"][:20]


SHAPE_ORDER = list(SHAPES)


def _ask(
    name: str, pipeline: Any, words: str = "", sizes: Sequence[tuple[int, int]] = ((256, ASKED), (512, 8))
) -> None:
    for size, count in sizes:

        def paint(texts: Sequence[str], size: int = size) -> np.ndarray:
            return _painted(pipeline, [text + words for text in texts], size)

        result = score(paint, scenes_to_ask(count), SHEETS / f"{name}-{size}.png")
        _print_score(name, size, count, result)


def _print_score(name: str, size: int, count: int, result: tuple[float, float]) -> None:
    print(
        f"{name}: at {size} of {count} captions {result[0]:.0%} have their colours, {result[1]:.0%} the shape too",
        flush=True,
    )


def _painted(pipeline: Any, texts: Sequence[str], size: int, **settings: Any) -> np.ndarray:
    found = pipeline(
        list(texts),
        height=size,
        width=size,
        generator=_generators(len(texts)),
        output_type="np",
        **{"num_inference_steps": STEPS, **settings},
    )
    return np.asarray(found.images)


def _compare(name: str, found: np.ndarray, asked: Sequence[Any], small: torch.Tensor, size: int) -> None:
    wanted = np.stack([draw(scene, size) for scene in asked])
    bicubic = np.stack([_bicubic(to_array(picture), size) for picture in small])
    save_sheet(np.concatenate([bicubic, found, wanted]), SHEETS / f"{name}.png")
    edges = [np.mean([edge_strength(picture) for picture in of]) for of in (bicubic, found, wanted)]
    off = np.abs(found - wanted).mean(), np.abs(bicubic - wanted).mean()
    print(
        f"{name}: edges bicubic {edges[0]:.3f}, found {edges[1]:.3f}, drawn {edges[2]:.3f}; off {off[0]:.4f}, bicubic {off[1]:.4f}",
        flush=True,
    )


def _bicubic(picture: np.ndarray, size: int) -> np.ndarray:
    image = Image.fromarray((picture * 255).round().astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32) / 255


def _generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(index) for index in range(count)]
