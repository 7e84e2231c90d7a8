"""Recipes for all trained models: what each needs, how and how long it is trained, and how it is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import (
    additions,
    clip,
    consistency,
    ip_adapter,
    kandinsky,
    looking,
    native,
    pipelines,
    sdxl,
    stable_diffusion,
    upscalers,
)
from .autoencoders import (
    make_autoencoder_kl,
    make_movq,
    train_autoencoder_kl,
    train_decoder,
    train_movq,
    turned,
)
from .store import Store
from .tokenizer import tokenizer
from .training import Plan

Modules = Mapping[str, Any]


def _nothing(store: Store) -> None:
    """For models without an evaluation."""


@dataclass(frozen=True)
class Recipe:
    make: Callable[[Store], Modules]
    makes: tuple[str, ...]
    """The names of the modules, which are also their folders' names."""
    needs: tuple[str, ...] = ()
    look: Callable[[Store], None] = _nothing
    base: str | None = None
    """The base of a fine-tune, for which only the differences are stored."""


def _kl(name: str, widths: tuple[int, ...], scaling_factor: float, plan: Plan, decoder: Plan) -> Recipe:
    def make(store: Store) -> Modules:
        vae = train_autoencoder_kl(name, make_autoencoder_kl(widths, scaling_factor, plan.seed), plan)
        return {name: train_decoder(name, vae, decoder)}

    return Recipe(make, (name,), look=lambda store: looking.reconstructions(store, name))


def _movq(plan: Plan, decoder: Plan) -> Recipe:
    return Recipe(
        lambda store: {"movq": train_decoder("movq", train_movq("movq", make_movq(plan.seed), plan), decoder)},
        ("movq",),
        look=lambda store: looking.reconstructions(store, "movq"),
    )


def _towers(letter: str, size: clip.Size, plan: Plan, *, keep_picture: bool) -> Recipe:
    names = (f"text_{letter}", f"picture_{letter}") if keep_picture else (f"text_{letter}",)

    def make(store: Store) -> Modules:
        words = tokenizer()
        towers = clip.Towers(
            clip.make_text_tower(size, len(words), plan.seed), clip.make_picture_tower(size, plan.seed + 1)
        )
        trained = clip.train_towers(f"clip {letter}", towers, words, plan)
        return dict(zip(names, (trained.text, trained.picture)))

    return Recipe(make, names, look=looking.towers if keep_picture else _nothing)


def _sd15(
    name: str,
    style: str,
    plan: Plan,
    *,
    start: str | None = None,
) -> Recipe:
    """start: the base model of a fine-tune, which changes only the outer layers."""

    def make(store: Store) -> Modules:
        text_encoder = store.load("text_l")
        if start is None:
            unet = stable_diffusion.make_unet(clip.L.width, plan.seed)
        else:
            unet = stable_diffusion.only(store.load(start), stable_diffusion.STYLE_PARTS)
        return {
            name: stable_diffusion.train_unet(
                name, unet, store.load("vae_sd15"), tokenizer(), text_encoder, style, plan
            )
        }

    return Recipe(
        make,
        (name,),
        ("vae_sd15", "text_l", *((start,) if start else ())),
        lambda store: looking.text_to_image(store, name, style),
        start,
    )


def _one(
    name: str,
    needs: tuple[str, ...],
    make: Callable[[Store], Any],
    look: Callable[[Store], None] = _nothing,
    base: str | None = None,
) -> Recipe:
    return Recipe(lambda store: {name: make(store)}, (name,), needs, look, base)


def _sdxl_base(store: Store) -> Any:
    unet = sdxl.make_sdxl_unet(clip.L.width + clip.G.width, clip.G.width, 6, 401)
    sdxl.start_from_sd15(unet, store.load("unet_sd15"))
    return sdxl.train_base(
        unet, store.load("vae_sdxl"), tokenizer(), store.load("text_l"), store.load("text_g"), Plan(2500, 2e-3, 401)
    )


def _sdxl_refiner(store: Store) -> Any:
    unet = sdxl.make_sdxl_unet(clip.G.width, clip.G.width, 5, 409)
    sdxl.start_from_base(unet, store.load("unet_sdxl_base"))
    return sdxl.train_refiner(unet, store.load("vae_sdxl"), tokenizer(), store.load("text_g"), Plan(2500, 1.5e-3, 409))


def _prior(store: Store) -> Any:
    prior = kandinsky.make_prior(501)
    return kandinsky.train_prior(
        prior, tokenizer(), store.load("text_g"), store.load("picture_g"), Plan(4000, 2e-3, 501)
    )


def _decoder(store: Store) -> Any:
    plan = Plan(5000, 3e-3, 503, ema=0.999)
    unet = kandinsky.make_decoder_unet(plan.seed)
    return kandinsky.train_decoder("kandinsky decoder", unet, store.load("movq"), store.load("picture_g"), plan)


def _tuned_decoder(name: str, plan: Plan, config: dict[str, Any], **taught: Any) -> Callable[[Store], Any]:
    """Continues from the plain decoder. `config` is for make_decoder_unet, `taught` for train_decoder."""

    def make(store: Store) -> Any:
        unet = kandinsky.going_on(kandinsky.make_decoder_unet(plan.seed, **config), store.load("unet_kandinsky"))
        movq, tower = store.load("movq"), store.load("picture_g")
        return kandinsky.train_decoder(name, unet, movq, tower, plan, shown_at=kandinsky.TUNED_AT, **taught)

    return make


_depth_decoder = _tuned_decoder(
    "kandinsky depth decoder", Plan(2000, 8e-4, 509), {"hint": True}, hint=True, anywhere=0.8
)
_inpainting_decoder = _tuned_decoder(
    "kandinsky inpainting decoder",
    Plan(2000, 8e-4, 521),
    {"channels": kandinsky.INPAINT_CHANNELS},
    extra=kandinsky.seen_round_boxes,
    anywhere=0.5,
)


def _controlnet(store: Store) -> Any:
    unet = store.load("unet_sd15")
    controlnet = additions.make_controlnet(unet, 601)
    return additions.train_controlnet(
        unet, controlnet, store.load("vae_sd15"), tokenizer(), store.load("text_l"), Plan(4000, 2e-3, 601)
    )


def _inpainting(store: Store) -> Any:
    unet = stable_diffusion.only(
        additions.make_inpainting_unet(store.load("unet_sd15")), stable_diffusion.NEAREST_PARTS
    )
    return additions.train_inpainting(
        unet, store.load("vae_sd15"), tokenizer(), store.load("text_l"), Plan(2500, 8e-4, 607)
    )


def _lora(store: Store) -> Any:
    return additions.train_lora(
        store.load("unet_sd15"), store.load("vae_sd15"), tokenizer(), store.load("text_l"), Plan(1500, 2e-3, 613)
    )


def _embedding(store: Store) -> Any:
    return additions.train_embedding(
        store.load("unet_sd15"),
        store.load("vae_sd15"),
        tokenizer(),
        store.load("text_l"),
        Plan(500, 2e-2, 617, warmup=10),
    )


def _lcm_lora(store: Store) -> Any:
    return consistency.train_lcm_lora(pipelines.stable_diffusion(store), Plan(2000, 2e-3, 618))


def _ip_adapter(store: Store) -> Any:
    pipeline = pipelines.stable_diffusion(store, image_encoder=store.load("picture_g"))
    return ip_adapter.train_ip_adapter(pipeline, Plan(2000, 2e-3, 619))


def _x2(store: Store) -> Any:
    unet = upscalers.make_x2_unet(clip.L.width, 701)
    return upscalers.train_x2(unet, store.load("vae_sd15"), tokenizer(), store.load("text_l"), Plan(4000, 3e-3, 701))


def _x4(store: Store) -> Any:
    unet = upscalers.make_x4_unet(clip.G.width, 709)
    return upscalers.train_x4(unet, store.load("vae_x4"), tokenizer(), store.load("text_g"), Plan(4000, 3e-3, 709))


def _native(store: Store) -> Any:
    return native.train_native_unet(
        native.make_native_unet(clip.L.width, 621),
        store.load("vae_sd15"),
        tokenizer(),
        store.load("text_l"),
        Plan(4000, 3e-3, 621),
    )


def _taesd(store: Store) -> Any:
    return native.train_tiny_autoencoder(
        native.make_tiny_autoencoder(631), store.load("vae_sd15"), Plan(5000, 3e-3, 631)
    )


SD15 = ("vae_sd15", "text_l", "unet_sd15")

RECIPES = {
    "vae_sd15": _kl("vae_sd15", (16, 16, 32, 64), 0.18215, Plan(4500, 2e-3, 101), Plan(2500, 1e-3, 102)),
    "clip_l": _towers("l", clip.L, Plan(4000, 2e-3, 201), keep_picture=False),
    "unet_sd15": _sd15("unet_sd15", "plain", Plan(5000, 3e-3, 301, ema=0.999)),
    "unet_comic": _sd15("unet_comic", "comic", Plan(2000, 6e-4, 311), start="unet_sd15"),
    "unet_pixel": _sd15("unet_pixel", "pixel", Plan(2000, 6e-4, 313), start="unet_sd15"),
    "unet_ring": _sd15("unet_ring", "ring", Plan(2000, 6e-4, 317), start="unet_sd15"),
    "unet_inpainting": _one("unet_inpainting", SD15, _inpainting, looking.inpainting, "unet_sd15"),
    "controlnet_depth": _one("controlnet_depth", SD15, _controlnet, looking.controlnet, "unet_sd15"),
    "lora_pixel": _one("lora_pixel", SD15, _lora, looking.lora),
    "embedding_ember": _one("embedding_ember", SD15, _embedding, looking.embedding),
    "unet_native": _one("unet_native", ("vae_sd15", "text_l"), _native),
    "taesd": _one("taesd", ("vae_sd15",), _taesd),
    "clip_g": _towers("g", clip.G, Plan(4000, 2e-3, 211), keep_picture=True),
    "lora_lcm": _one("lora_lcm", SD15, _lcm_lora, looking.lcm_lora),
    "ip_adapter": _one("ip_adapter", (*SD15, "picture_g"), _ip_adapter, looking.ip_adapter),
    "vae_sdxl": _one(
        "vae_sdxl",
        ("vae_sd15",),
        lambda store: turned(store.load("vae_sd15"), 0.13025, force_upcast=True),
        lambda store: looking.reconstructions(store, "vae_sdxl"),
        "vae_sd15",
    ),
    "unet_sdxl_base": _one(
        "unet_sdxl_base", ("vae_sdxl", "text_l", "text_g", "unet_sd15"), _sdxl_base, looking.sdxl_base, "unet_sd15"
    ),
    "unet_sdxl_refiner": _one(
        "unet_sdxl_refiner", ("vae_sdxl", "text_g", "unet_sdxl_base"), _sdxl_refiner, looking.refiner, "unet_sdxl_base"
    ),
    "movq": _movq(Plan(2000, 2e-3, 107), Plan(2500, 1e-3, 108)),
    "prior": _one("prior", ("text_g", "picture_g"), _prior),
    "unet_kandinsky": _one("unet_kandinsky", ("movq", "picture_g", "text_g", "prior"), _decoder, looking.kandinsky),
    "unet_kandinsky_depth": _one(
        "unet_kandinsky_depth",
        ("movq", "picture_g", "text_g", "prior", "unet_kandinsky"),
        _depth_decoder,
        lambda store: looking.kandinsky(store, "unet_kandinsky_depth"),
        "unet_kandinsky",
    ),
    "unet_kandinsky_inpainting": _one(
        "unet_kandinsky_inpainting",
        ("movq", "picture_g", "text_g", "prior", "unet_kandinsky"),
        _inpainting_decoder,
        looking.kandinsky_inpainting,
        "unet_kandinsky",
    ),
    "unet_x2": _one("unet_x2", ("vae_sd15", "text_l"), _x2, looking.x2),
    "vae_x4": _kl("vae_x4", (16, 16, 32), 0.08333, Plan(3000, 2e-3, 109), Plan(2500, 1e-3, 110)),
    "unet_x4": _one("unet_x4", ("vae_x4", "text_g"), _x4, looking.x4),
}
