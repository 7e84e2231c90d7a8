"""Examples that chain several models."""

from __future__ import annotations

from typing import Any

from .parts import (
    COMIC,
    GUIDE,
    KANDINSKY,
    KANDINSKY_PRIOR,
    PIXEL,
    SD15,
    SDXL_BASE,
    SDXL_GUIDE,
    SDXL_REFINER,
    example_picture,
    hub_model,
    scaled,
)
from .sheet import Sheet


def text_to_image_to_image() -> Sheet:
    sheet = Sheet(
        "text_to_image_to_image",
        note=f"""# Text to image to image

Stable Diffusion 1.5 paints a picture from a text, and Kandinsky 2.2 repaints it. No input picture is needed.

The latent goes directly from one sampler to the other. The two models have different latent spaces: the second sampler detects
this, decodes with the first model, encodes with its own, and says so in the node.

**Try**
- **strength** in *Kandinsky repaints*: lower values keep more of the first picture.
- Another scheduler in *A faster scheduler*. This one needs only 25 steps.
- Different prompts for Kandinsky and Stable Diffusion.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Text-to-image-to-image*.
""",
    )
    subject = "a large white star on a blue sea"
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        model = sheet.add(
            "RelaySetScheduler",
            "A faster scheduler",
            model=model,
            scheduler="DPMSolverMultistepScheduler",
            sigmas="karras",
        )
        prior = hub_model(sheet, "Kandinsky prior", KANDINSKY_PRIOR)
        decoder = hub_model(sheet, "Kandinsky decoder", KANDINSKY)
    with sheet.column("2 Prompt"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "For Stable Diffusion",
            model=model,
            prompt=f"{subject}, (soft light)1.2, detailed",
            negative_prompt="drawing",
        )
        described = sheet.add(
            "RelayKandinskyPrior",
            "For Kandinsky",
            prior=prior,
            prompt="a large yellow star under a purple sky, detailed",
            negative_prompt="drawing",
            steps=25,
            guidance_scale=4.0,
            seed=24,
        )
    with sheet.column("3 Paint, then repaint"):
        painted = sheet.add(
            "RelayTextToImage",
            "Stable Diffusion paints",
            model=model,
            prompt=prompt,
            width=512,
            height=512,
            batch_size=1,
            steps=25,
            guidance_scale=7.5,
            seed=24,
        )
        repainted = sheet.add(
            "RelayImageToImage",
            "Kandinsky repaints",
            model=decoder,
            prompt=described,
            latent=painted,
            strength=0.5,
            steps=50,
            guidance_scale=4.0,
            seed=24,
        )
    with sheet.column("4 Decode and save"):
        before = sheet.add("RelayDecode", "The first picture", model=model, latent=painted)
        sheet.add("PreviewImage", "Before", images=before)
        after = sheet.add("RelayDecode", "The second picture", model=decoder, latent=repainted)
        sheet.add("SaveImage", "After", images=after, filename_prefix="relay/text_to_image_to_image")
    return sheet


def latent_chain() -> Sheet:
    sheet = Sheet(
        "latent_chain_of_three",
        note=f"""# Three models in one chain of latents

The picture goes through Stable Diffusion 1.5, then a comic model, then a pixel art model. The last two are
fine-tunes of Stable Diffusion 1.5 and share its latent space, so the latent passes unchanged. The picture is encoded once at
the start and decoded once at the end, and nothing is lost in between.

The comic model needs the words `charliebo artstyle` in its prompt, and the pixel art model needs `pixelartstyle`.

**Try**
- Leave a model out: connect the latents around it.
- **strength** of each step: 0.4 to 0.6 keeps what the previous step painted.
- Any other fine-tune of Stable Diffusion 1.5.

The pack loads safetensors only. If a model is published as pickles, the loader says how to convert it.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Image-to-image-to-image*.
""",
    )
    subject = "a large orange house under a blue sky"
    steps = (
        ("Stable Diffusion 1.5", SD15, f"{subject}, detailed, soft light", 0.7),
        ("Comic", COMIC, f"{subject}, (charliebo artstyle)1.1", 0.55),
        ("Pixel art", PIXEL, f"{subject}, pixelartstyle", 0.55),
    )
    with sheet.column("1 Load"):
        picture = example_picture(sheet)
        models = [hub_model(sheet, title, repo_id) for title, repo_id, _, _ in steps]
    with sheet.column("2 Size and prompts"):
        source: dict[str, Any] = {"image": scaled(sheet, picture, 512)}
        prompts = [
            sheet.add(
                "RelayEncodePrompt",
                f"Prompt: {title}",
                model=models[row],
                prompt=text,
                negative_prompt="drawing",
            )
            for row, (title, _, text, _) in enumerate(steps)
        ]
    with sheet.column("3 Repaint three times"):
        for row, (title, _, _, strength) in enumerate(steps):
            latent = sheet.add(
                "RelayImageToImage",
                f"Repaint: {title}",
                model=models[row],
                prompt=prompts[row],
                strength=strength,
                steps=30,
                guidance_scale=7.5,
                seed=25 + row,
                **source,
            )
            source = {"latent": latent}
    with sheet.column("4 Decode once and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=models[2], latent=source["latent"])
        sheet.add("SaveImage", "The pixel art", images=image, filename_prefix="relay/latent_chain")
    return sheet


def base_to_refiner() -> Sheet:
    sheet = Sheet(
        "sdxl_base_to_refiner",
        note=f"""# SDXL: base, then refiner

The base runs the first 80 % of the steps and stops: **denoising_end** is 0.8, and the noise stays in the latent. The refiner
continues from there.

The latent knows where it was left, so **denoising_start** of the refiner stays at 0, which means *continue where the latent was
left*. Strength is not used then.

**Try**
- **denoising_end** 0.7 or 0.9. You don't have to change anything else.
- **denoising_end** 1: the base finishes the picture, and the refiner repaints it with its strength.

Use the same number of steps in both.

In the diffusers documentation: [Stable Diffusion XL]({SDXL_GUIDE}), *Refine image quality*.
""",
    )
    text = "a large white tent in a green field, (sharp focus)1.2, detailed, a photo"
    negative = "drawing"
    settings = {"steps": 30, "guidance_scale": 5.0, "seed": 28}
    with sheet.column("1 Load"):
        base = hub_model(sheet, "SDXL base", SDXL_BASE)
        refiner = hub_model(sheet, "SDXL refiner", SDXL_REFINER)
    with sheet.column("2 Prompt"):
        prompts = [
            sheet.add("RelayEncodePrompt", f"For the {name}", model=model, prompt=text, negative_prompt=negative)
            for name, model in (("base", base), ("refiner", refiner))
        ]
    with sheet.column("3 Paint, then refine"):
        painted = sheet.add(
            "RelayTextToImage",
            "The base begins",
            model=base,
            prompt=prompts[0],
            width=1024,
            height=1024,
            batch_size=1,
            denoising_end=0.8,
            **settings,
        )
        refined = sheet.add(
            "RelayImageToImage",
            "The refiner goes on",
            model=refiner,
            prompt=prompts[1],
            latent=painted,
            strength=0.3,
            **settings,
        )
    with sheet.column("4 Decode and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=refiner, latent=refined)
        sheet.add("SaveImage", "The picture", images=image, filename_prefix="relay/sdxl_base_to_refiner")
    return sheet
