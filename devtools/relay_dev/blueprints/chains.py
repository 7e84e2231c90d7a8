"""Blueprints with several models, and the SDXL refiner."""

from __future__ import annotations

from ..examples.parts import (
    COMIC,
    KANDINSKY,
    KANDINSKY_PRIOR,
    PIXEL,
    SDXL_REFINER,
    X2_UPSCALER,
    X4_UPSCALER,
    hub_model,
)
from .blueprint import Blueprint


def refine() -> Blueprint:
    made = Blueprint(
        "Refine (SDXL Refiner, Diffusers)",
        "Adds detail to a picture of about 1024 x 1024, and changes little else. A strength of 0.2 only cleans up.",
        ("refiner", "detail", "enhance", "img2img", "diffusers"),
    )
    with made.sheet.column("1 Load and encode"):
        model = hub_model(made.sheet, "Refiner", SDXL_REFINER)
        prompt = made.sheet.add("RelayEncodePrompt", "Prompt", model=model, prompt="", negative_prompt="")
    with made.sheet.column("2 Refine"):
        latent = made.sheet.add(
            "RelayImageToImage",
            "Refine",
            model=model,
            prompt=prompt,
            strength=0.3,
            steps=30,
            guidance_scale=5.0,
            seed=0,
        )
        image = made.sheet.add("RelayDecode", "Decode", model=model, latent=latent)
    made.takes_all(latent, "image")
    made.takes_all(prompt, "prompt", "negative_prompt")
    made.takes_all(latent, "strength", "steps", "aesthetic_score", "seed")
    made.gives("image", image)
    return made


def restyle_chain() -> Blueprint:
    made = Blueprint(
        "Restyle Chain (Two Models, Diffusers)",
        "Repaints a picture with one model, and the result with a second model, without decoding in between. Many styles need a trigger word in the prompt.",
        ("style", "restyle", "chain", "img2img", "i2i", "diffusers"),
    )
    titles = (("First", COMIC, 0.5), ("Second", PIXEL, 0.5))
    with made.sheet.column("1 Load and encode"):
        models = [hub_model(made.sheet, f"{name} model", repo_id) for name, repo_id, _ in titles]
        prompts = [
            made.sheet.add("RelayEncodePrompt", f"{name} prompt", model=model, prompt="", negative_prompt="")
            for (name, _, _), model in zip(titles, models)
        ]
    with made.sheet.column("2 Repaint twice"):
        first = made.sheet.add(
            "RelayImageToImage", "First", model=models[0], prompt=prompts[0], strength=0.5, steps=30, seed=0
        )
        second = made.sheet.add(
            "RelayImageToImage",
            "Second",
            model=models[1],
            prompt=prompts[1],
            latent=first,
            strength=0.5,
            steps=30,
            seed=0,
        )
        image = made.sheet.add("RelayDecode", "Decode", model=models[1], latent=second)
    made.takes_all(first, "image")
    for number, (model, prompt, latent) in enumerate(zip(models, prompts, (first, second)), 1):
        made.takes(f"repo_id_{number}", (model, "repo_id"))
        made.takes(f"prompt_{number}", (prompt, "prompt"))
        made.takes(f"strength_{number}", (latent, "strength"))
    made.takes("steps", (first, "steps"), (second, "steps"))
    made.takes("seed", (first, "seed"), (second, "seed"))
    made.gives("image", image)
    return made


def upscale() -> Blueprint:
    made = Blueprint(
        "Upscale x2-x4 (Diffusers)",
        "Makes a picture eight times as wide and high: the latent upscaler doubles it, and super-resolution makes the result four times as large. "
        "A tile_size above 0 keeps the memory use the same for any size.",
        ("upscale", "upscaler", "super resolution", "x2", "x4", "enlarge", "diffusers"),
    )
    with made.sheet.column("1 Load and encode"):
        twice = hub_model(made.sheet, "Upscaler x2", X2_UPSCALER)
        four = hub_model(made.sheet, "Upscaler x4", X4_UPSCALER)
        small = made.sheet.add("RelayEncode", "Picture to latent", model=twice, seed=0)
        prompts = [
            made.sheet.add("RelayEncodePrompt", title, model=model, prompt="", negative_prompt="")
            for title, model in (("Prompt for x2", twice), ("Prompt for x4", four))
        ]
    with made.sheet.column("2 Upscale"):
        latent = made.sheet.add(
            "RelayLatentUpscale", "Twice as large", model=twice, prompt=prompts[0], latent=small, seed=0
        )
        image = made.sheet.add(
            "RelaySuperResolution",
            "Four times as large",
            model=four,
            prompt=prompts[1],
            latent=latent,
            tile_size=256,
            seed=0,
        )
    made.takes_all(small, "image")
    made.takes("prompt", (prompts[0], "prompt"), (prompts[1], "prompt"))
    made.takes_all(image, "noise_level", "tile_size", "steps")
    made.takes("seed", (image, "seed"), (latent, "seed"))
    made.gives("image", image)
    return made


def kandinsky_mix() -> Blueprint:
    made = Blueprint(
        "Kandinsky Mix (Kandinsky 2.2, Diffusers)",
        "Paints a new picture that is partly what another picture shows and partly what a text says. Width and height must be multiples of 64.",
        ("kandinsky", "mix", "interpolate", "image prompt", "variations", "diffusers"),
    )
    with made.sheet.column("1 Load and describe"):
        prior = hub_model(made.sheet, "Prior", KANDINSKY_PRIOR)
        decoder = hub_model(made.sheet, "Decoder", KANDINSKY)
        seen = made.sheet.add("RelayImagePrompt", "What the picture shows", prior=prior)
        text = made.sheet.add(
            "RelayKandinskyPrior", "What the text says", prior=prior, prompt="", negative_prompt="", seed=0
        )
        mixed = made.sheet.add("RelayMixPrompts", "Mix", prompt_a=seen, prompt_b=text, weight_b=0.5)
    with made.sheet.column("2 Paint"):
        latent = made.sheet.add(
            "RelayTextToImage",
            "Paint",
            model=decoder,
            prompt=mixed,
            width=768,
            height=768,
            steps=50,
            guidance_scale=4.0,
            seed=0,
        )
        image = made.sheet.add("RelayDecode", "Decode", model=decoder, latent=latent)
    made.takes_all(seen, "image")
    made.takes_all(text, "prompt", "negative_prompt")
    made.takes("text_weight", (mixed, "weight_b"))
    made.takes_all(latent, "width", "height", "steps")
    made.takes("seed", (latent, "seed"), (text, "seed"))
    made.gives("image", image)
    return made
