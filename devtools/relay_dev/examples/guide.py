"""The examples, after the image-to-image guide of the diffusers documentation and its neighbours."""

from __future__ import annotations

from typing import Any

from .sheet import Output, Sheet

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
COMIC = "ogkalu/Comic-Diffusion"
PIXEL = "kohbanye/pixel-art-style"
SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
SDXL_REFINER = "stabilityai/stable-diffusion-xl-refiner-1.0"
KANDINSKY_PRIOR = "kandinsky-community/kandinsky-2-2-prior"
KANDINSKY = "kandinsky-community/kandinsky-2-2-decoder"
NATIVE_SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
EXAMPLE_PICTURE = "example.png"

GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/img2img"
SDXL_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/sdxl"
WEIGHTS_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/weighted_prompts"


def hub_model(sheet: Sheet, title: str, repo_id: str, *, row: int | None = None) -> Output:
    return sheet.add("RelayLoadModelFromHub", title, row=row, repo_id=repo_id)


def example_picture(sheet: Sheet) -> Output:
    """The picture that every ComfyUI has in its input folder."""
    return sheet.add("LoadImage", "The picture to start from", image=EXAMPLE_PICTURE)


def scaled(sheet: Sheet, picture: Output, size: int) -> Output:
    """Scaled to the size that the model is made for."""
    return sheet.add(
        "ImageScale",
        f"Scale to {size} x {size}",
        image=picture,
        upscale_method="lanczos",
        width=size,
        height=size,
        crop="center",
    )


def sd15_image_to_image() -> Sheet:
    sheet = Sheet(
        "sd15_image_to_image",
        note=f"""# Image to image with Stable Diffusion 1.5

A picture and a prompt go in, and the picture is painted anew after the prompt.

**Try**
- **strength** in *Repaint*: 0.4 stays near the picture, 1.0 forgets it.
- **guidance_scale**: 1 to 5 is free, 10 keeps close to the text.
- In the prompt, `watercolor++` asks for more of a word, `hill--` for less.
- Your own picture in *The picture to start from*.

The first run downloads the model once.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Stable Diffusion v1.5* and *Configure pipeline parameters*.
""",
    )
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        picture = example_picture(sheet)
    with sheet.column("2 Prompt and size"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "What to paint",
            model=model,
            prompt="a girl in a pink dress on a green hill, watercolor++, soft morning light, paper texture",
            negative_prompt="blurry, deformed, low quality",
        )
        picture = scaled(sheet, picture, 512)
    with sheet.column("3 Repaint"):
        latent = sheet.add(
            "RelayImageToImage",
            "Repaint",
            model=model,
            prompt=prompt,
            image=picture,
            strength=0.8,
            steps=30,
            guidance_scale=7.5,
            seed=20,
        )
    with sheet.column("4 Decode and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=model, latent=latent)
        sheet.add("SaveImage", "The new picture", images=image, filename_prefix="relay/sd15_image_to_image")
    return sheet


def sdxl_refiner() -> Sheet:
    sheet = Sheet(
        "sdxl_refiner_image_to_image",
        note=f"""# Image to image with the SDXL refiner

The refiner of SDXL adds detail to a picture of about 1024 x 1024 and changes little else.

**Try**
- **strength** in *Refine*: 0.2 only cleans up, above 0.5 the picture changes.
- **aesthetic_score**: how beautiful the picture is to be, from 0 to 10. Only the refiner knows it.
- The prompt may be long: it is not cut off at 77 tokens.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Stable Diffusion XL (SDXL)*.
""",
    )
    with sheet.column("1 Load"):
        model = hub_model(sheet, "SDXL refiner", SDXL_REFINER)
        picture = example_picture(sheet)
    with sheet.column("2 Prompt and size"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "What to bring out",
            model=model,
            prompt="a felt puppet of a girl in a pink dress on a green hill, (fine stitches)1.2, studio light, sharp focus",
            negative_prompt="flat colors, blurry, noise",
        )
        picture = scaled(sheet, picture, 1024)
    with sheet.column("3 Refine"):
        latent = sheet.add(
            "RelayImageToImage",
            "Refine",
            model=model,
            prompt=prompt,
            image=picture,
            strength=0.5,
            steps=30,
            guidance_scale=5.0,
            seed=21,
            aesthetic_score=6.5,
        )
    with sheet.column("4 Decode and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=model, latent=latent)
        sheet.add("SaveImage", "The refined picture", images=image, filename_prefix="relay/sdxl_refiner")
    return sheet


def kandinsky22() -> Sheet:
    sheet = Sheet(
        "kandinsky22_image_to_image",
        note=f"""# Image to image with Kandinsky 2.2

Kandinsky has two models. The **prior** turns a text into an image embedding: a description of a picture in numbers. The
**decoder** paints from it. The prior can also describe a picture, and *Mix Prompts* puts both descriptions together.

**Try**
- **weight_b** in *Text and picture together*: 0 is the text alone, 1 the picture alone.
- **strength** in *Repaint*: Kandinsky likes 0.3 to 0.6.

Width and height have to be multiples of 64: 768 x 768 here.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Kandinsky 2.2*.
""",
    )
    with sheet.column("1 Load"):
        prior = hub_model(sheet, "Kandinsky prior", KANDINSKY_PRIOR)
        decoder = hub_model(sheet, "Kandinsky decoder", KANDINSKY)
        picture = example_picture(sheet)
    with sheet.column("2 Prompt and size"):
        text = sheet.add(
            "RelayKandinskyPrior",
            "What to paint",
            prior=prior,
            prompt="portrait of a rabbit queen in a pink gown, storybook illustration+, warm colors",
            negative_prompt="low quality, bad drawing",
            steps=25,
            guidance_scale=4.0,
            seed=22,
        )
        seen = sheet.add("RelayImagePrompt", "What the picture shows", prior=prior, image=picture)
        prompt = sheet.add("RelayMixPrompts", "Text and picture together", prompt_a=text, prompt_b=seen, weight_b=0.3)
        picture = scaled(sheet, picture, 768)
    with sheet.column("3 Repaint"):
        latent = sheet.add(
            "RelayImageToImage",
            "Repaint",
            model=decoder,
            prompt=prompt,
            image=picture,
            strength=0.5,
            steps=50,
            guidance_scale=4.0,
            seed=22,
        )
    with sheet.column("4 Decode and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=decoder, latent=latent)
        sheet.add("SaveImage", "The new picture", images=image, filename_prefix="relay/kandinsky22")
    return sheet


def strength_sweep() -> Sheet:
    sheet = Sheet(
        "strength_sweep",
        note=f"""# What strength does

The same picture, model, prompt and seed, painted four times: with strength 0.4, 0.6, 0.8 and 1.0. Only the number in the four
*Strength* nodes differs. The grid shows them from left to right and from top to bottom.

At 1.0 nothing of the picture is left. Of 30 steps, 0.4 runs only 12, so it is also the fastest.

**Try**
- Keep strength and vary **guidance_scale**, or the **seed**.
- 1 row and 4 columns in *Four in one*.

The model is loaded once, and the prompt is encoded once.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Strength*.
""",
    )
    strengths = (0.4, 0.6, 0.8, 1.0)
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        picture = example_picture(sheet)
    with sheet.column("2 Prompt and size"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "One prompt for all",
            model=model,
            prompt="a girl in a pink dress on a green hill, oil painting+, golden hour, rich brush strokes",
            negative_prompt="blurry, low quality",
        )
        picture = scaled(sheet, picture, 512)
    with sheet.column("3 Repaint at four strengths"):
        settings = {"steps": 30, "guidance_scale": 7.5, "seed": 23}
        latents = [
            sheet.add(
                "RelayImageToImage",
                f"Strength {strength}",
                row=row,
                model=model,
                prompt=prompt,
                image=picture,
                strength=strength,
                **settings,
            )
            for row, strength in enumerate(strengths)
        ]
    with sheet.column("4 Decode"):
        images = [
            sheet.add("RelayDecode", f"Picture at {strength}", row=row, model=model, latent=latent)
            for row, (strength, latent) in enumerate(zip(strengths, latents))
        ]
    with sheet.column("5 Grid and save"):
        first = sheet.add("ImageBatch", "0.4 and 0.6", image1=images[0], image2=images[1])
        second = sheet.add("ImageBatch", "0.8 and 1.0", image1=images[2], image2=images[3])
        batch = sheet.add("ImageBatch", "All four", image1=first, image2=second)
        grid = sheet.add("RelayImageGrid", "Four in one", images=batch, rows=2, columns=2)
        sheet.add("SaveImage", "The grid", images=grid, filename_prefix="relay/strength_sweep")
    return sheet


def text_to_image_to_image() -> Sheet:
    sheet = Sheet(
        "text_to_image_to_image",
        note=f"""# Text to image to image

Stable Diffusion 1.5 paints a picture from a text, and Kandinsky 2.2 paints it anew. No picture is needed to begin with.

The latent goes straight from one sampler into the other. The two models have different latent spaces: the second sampler sees
that, decodes with the first model and encodes with its own, and says so in the node.

**Try**
- **strength** in *Kandinsky repaints*: how much of the first picture is kept.
- Another scheduler in *A faster scheduler*: this one needs only 25 steps.
- Other words for Kandinsky than for Stable Diffusion.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Text-to-image-to-image*.
""",
    )
    subject = "a lighthouse on a cliff above a stormy sea, seagulls"
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15, row=0)
        model = sheet.add(
            "RelaySetScheduler",
            "A faster scheduler",
            model=model,
            scheduler="DPMSolverMultistepScheduler",
            sigmas="karras",
        )
        prior = hub_model(sheet, "Kandinsky prior", KANDINSKY_PRIOR, row=1)
        decoder = hub_model(sheet, "Kandinsky decoder", KANDINSKY)
    with sheet.column("2 Prompt"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "For Stable Diffusion",
            row=0,
            model=model,
            prompt=f"{subject}, dramatic clouds, (muted colors)1.2, detailed",
            negative_prompt="text, frame, blurry",
        )
        described = sheet.add(
            "RelayKandinskyPrior",
            "For Kandinsky",
            row=1,
            prior=prior,
            prompt=f"{subject}, woodcut print in blue and white",
            negative_prompt="low quality",
            steps=25,
            guidance_scale=4.0,
            seed=24,
        )
    with sheet.column("3 Paint, then repaint"):
        painted = sheet.add(
            "RelayTextToImage",
            "Stable Diffusion paints",
            row=0,
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
            row=1,
            extra_height=80,
            model=decoder,
            prompt=described,
            latent=painted,
            strength=0.5,
            steps=50,
            guidance_scale=4.0,
            seed=24,
        )
    with sheet.column("4 Decode and save"):
        before = sheet.add("RelayDecode", "The first picture", row=0, model=model, latent=painted)
        sheet.add("PreviewImage", "Before", images=before)
        after = sheet.add("RelayDecode", "The second picture", row=1, model=decoder, latent=repainted)
        sheet.add("SaveImage", "After", images=after, filename_prefix="relay/text_to_image_to_image")
    return sheet


def latent_chain() -> Sheet:
    sheet = Sheet(
        "latent_chain_of_three",
        note=f"""# Three models in one chain of latents

The picture goes through Stable Diffusion 1.5, then through a comic model, then through a pixel art model. All three were made
from Stable Diffusion 1.5 and share its latent space, so the latent goes through as it is. The picture is encoded once at the
start and decoded once at the end; nothing is lost on the way.

The comic model wants the words `charliebo artstyle` in its prompt, the pixel art model `pixelartstyle`.

**Try**
- Leave a model out: connect the latents around it.
- **strength** of each step: 0.4 to 0.6 keeps what the step before has painted.
- Any other fine-tune of Stable Diffusion 1.5.

The pack reads safetensors only. If a model comes as pickles, the loader says how to convert it.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Image-to-image-to-image*.
""",
    )
    subject = "a girl in a pink dress on a green hill under a blue sky"
    steps = (
        ("Stable Diffusion 1.5", SD15, f"{subject}, detailed, soft light", 0.7),
        ("Comic", COMIC, f"{subject}, (charliebo artstyle)1.1", 0.55),
        ("Pixel art", PIXEL, f"{subject}, pixelartstyle", 0.55),
    )
    with sheet.column("1 Load"):
        picture = example_picture(sheet)
        models = [hub_model(sheet, title, repo_id, row=row) for row, (title, repo_id, _, _) in enumerate(steps)]
    with sheet.column("2 Size and prompts"):
        source: dict[str, Any] = {"image": scaled(sheet, picture, 512)}
        prompts = [
            sheet.add(
                "RelayEncodePrompt",
                f"Prompt: {title}",
                row=row,
                model=models[row],
                prompt=text,
                negative_prompt="blurry, low quality",
            )
            for row, (title, _, text, _) in enumerate(steps)
        ]
    with sheet.column("3 Repaint three times"):
        for row, (title, _, _, strength) in enumerate(steps):
            latent = sheet.add(
                "RelayImageToImage",
                f"Repaint: {title}",
                row=row,
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
        image = sheet.add("RelayDecode", "Latent to picture", row=1, model=models[2], latent=source["latent"])
        sheet.add("SaveImage", "The pixel art", images=image, filename_prefix="relay/latent_chain")
    return sheet


def base_to_refiner() -> Sheet:
    sheet = Sheet(
        "sdxl_base_to_refiner",
        note=f"""# SDXL: base, then refiner

The base runs the first 80 % of the steps and stops: **denoising_end** is 0.8, and the noise stays in the latent. The refiner
goes on from there.

The latent knows where it was left, so **denoising_start** of the refiner stays at 0, which means *follow the latent*. Strength is
not used then.

**Try**
- **denoising_end** 0.7 or 0.9. Nothing else has to be changed.
- **denoising_end** 1: the base finishes the picture, and the refiner repaints it with its strength.

Keep the same number of steps in both.

In the diffusers documentation: [Stable Diffusion XL]({SDXL_GUIDE}), *Refine image quality*.
""",
    )
    text = "a red fox asleep in a snowy birch forest at dawn, (soft fur)1.2, mist, photograph, 50 mm"
    negative = "painting, drawing, blurry"
    settings = {"steps": 30, "guidance_scale": 5.0, "seed": 28}
    with sheet.column("1 Load"):
        base = hub_model(sheet, "SDXL base", SDXL_BASE, row=0)
        refiner = hub_model(sheet, "SDXL refiner", SDXL_REFINER, row=1)
    with sheet.column("2 Prompt"):
        prompts = [
            sheet.add(
                "RelayEncodePrompt", f"For the {name}", row=row, model=model, prompt=text, negative_prompt=negative
            )
            for row, (name, model) in enumerate((("base", base), ("refiner", refiner)))
        ]
    with sheet.column("3 Paint, then refine"):
        painted = sheet.add(
            "RelayTextToImage",
            "The base begins",
            row=0,
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
            row=1,
            model=refiner,
            prompt=prompts[1],
            latent=painted,
            strength=0.3,
            **settings,
        )
    with sheet.column("4 Decode and save"):
        image = sheet.add("RelayDecode", "Latent to picture", row=1, model=refiner, latent=refined)
        sheet.add("SaveImage", "The picture", images=image, filename_prefix="relay/sdxl_base_to_refiner")
    return sheet


def mixed_with_native_nodes() -> Sheet:
    sheet = Sheet(
        "mixed_with_comfyui_nodes",
        note=f"""# Together with ComfyUI's own nodes

One latent goes through both worlds:

1. *Repaint (diffusers)*: the picture becomes a latent.
2. *Go on (ComfyUI)*: the host's KSampler, with the same model as a checkpoint. Its prompts come from *Encode Prompt*, so
Compel's weights work in it too.
3. *Enlarge to 768 (ComfyUI)*: the host's Upscale Latent.
4. *Repaint larger (diffusers)*: adds the detail.
5. *Latent to picture (ComfyUI)*: the host's VAE Decode.

Nothing is decoded on the way: latents and prompts are ComfyUI's own kinds of values.

**Try**
- **denoise** and **sampler_name** in *Go on (ComfyUI)*.
- A LoRA on the checkpoint, or another SD1.5 checkpoint.

About the prompts in the diffusers documentation: [Prompt weighting]({WEIGHTS_GUIDE}).
""",
    )
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5 (diffusers)", SD15)
        native = sheet.add("CheckpointLoaderSimple", "Stable Diffusion 1.5 (ComfyUI)", ckpt_name=NATIVE_SD15)
        picture = example_picture(sheet)
    with sheet.column("2 Prompt and size"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "One prompt for both worlds",
            model=model,
            prompt="a girl in a pink dress on a green hill, (paper collage)1.3, layered paper++, soft shadows",
            negative_prompt="blurry, low quality",
        )
        picture = scaled(sheet, picture, 512)
    with sheet.column("3 Repaint at 512"):
        first = sheet.add(
            "RelayImageToImage",
            "Repaint (diffusers)",
            model=model,
            prompt=prompt,
            image=picture,
            strength=0.75,
            steps=30,
            guidance_scale=7.5,
            seed=29,
        )
        second = sheet.add(
            "KSampler",
            "Go on (ComfyUI)",
            model=native["MODEL"],
            positive=prompt["positive"],
            negative=prompt["negative"],
            latent_image=first,
            seed=30,
            steps=12,
            cfg=7.0,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            denoise=0.4,
        )
    with sheet.column("4 Enlarge and repaint"):
        larger = sheet.add(
            "LatentUpscale",
            "Enlarge to 768 (ComfyUI)",
            samples=second,
            upscale_method="bislerp",
            width=768,
            height=768,
            crop="disabled",
        )
        third = sheet.add(
            "RelayImageToImage",
            "Repaint larger (diffusers)",
            model=model,
            prompt=prompt,
            latent=larger,
            strength=0.5,
            steps=30,
            guidance_scale=7.5,
            seed=31,
        )
    with sheet.column("5 Decode and save"):
        image = sheet.add("VAEDecode", "Latent to picture (ComfyUI)", samples=third, vae=native["VAE"])
        sheet.add("SaveImage", "The new picture", images=image, filename_prefix="relay/mixed_with_comfyui_nodes")
    return sheet


SHEETS = (
    sd15_image_to_image,
    sdxl_refiner,
    kandinsky22,
    strength_sweep,
    text_to_image_to_image,
    latent_chain,
    base_to_refiner,
    mixed_with_native_nodes,
)
