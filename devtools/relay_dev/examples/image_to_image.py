"""Examples in which one model repaints a picture."""

from __future__ import annotations

from .parts import GUIDE, SD15, SDXL_REFINER, example_picture, hub_model, scaled
from .sheet import Sheet


def sd15_image_to_image() -> Sheet:
    sheet = Sheet(
        "sd15_image_to_image",
        note=f"""# Image to image with Stable Diffusion 1.5

The model repaints a picture from a prompt.

**Try**
- **strength** in *Repaint*: 0.4 stays close to the picture, 1.0 ignores it.
- **guidance_scale**: 1 to 5 follows the prompt loosely, 10 follows it closely.
- In the prompt, `red++` asks for more of a word, `field--` for less.
- Your own picture in *The picture to start from*.

The first run downloads the model once.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Stable Diffusion v1.5* and *Configure pipeline parameters*.
""",
    )
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        loaded = example_picture(sheet)
    with sheet.column("2 Prompt and size"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "What to paint",
            model=model,
            prompt="a large red++ flower in a green field, soft light, detailed",
            negative_prompt="drawing",
        )
        picture = scaled(sheet, loaded, 512)
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
        saved = sheet.add("SaveImage", "The new picture", images=image, filename_prefix="relay/sd15_image_to_image")
    sheet.as_app(
        (loaded, "image"),
        (prompt, "prompt"),
        (prompt, "negative_prompt"),
        (latent, "strength"),
        (latent, "guidance_scale"),
        (latent, "seed"),
        output=saved,
    )
    return sheet


def sdxl_refiner() -> Sheet:
    sheet = Sheet(
        "sdxl_refiner_image_to_image",
        note=f"""# Image to image with the SDXL refiner

The SDXL refiner adds detail to a picture of about 1024 x 1024 and changes little else.

**Try**
- **strength** in *Refine*: 0.2 only cleans up, above 0.5 the picture changes.
- **aesthetic_score**, from 0 to 10: higher asks for a more pleasing picture. Only the refiner uses it.
- A long prompt: it is not cut off at 77 tokens.

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
            prompt="a large white star on a black background, (sharp focus)1.2, detailed",
            negative_prompt="drawing",
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
