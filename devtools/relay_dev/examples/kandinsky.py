"""Examples with Kandinsky 2.2."""

from __future__ import annotations

from .parts import (
    EXAMPLE_PICTURE,
    GUIDE,
    KANDINSKY,
    KANDINSKY_DEPTH,
    KANDINSKY_GUIDE,
    KANDINSKY_PRIOR,
    example_picture,
    hub_model,
    scaled,
)
from .sheet import Sheet


def kandinsky22() -> Sheet:
    sheet = Sheet(
        "kandinsky22_image_to_image",
        note=f"""# Image to image with Kandinsky 2.2

Kandinsky has two models. The **prior** turns a text into an image embedding: a description of a picture in numbers. The
**decoder** paints from it. The prior can also describe a picture, and *Mix Prompts* combines both descriptions.

**Try**
- **weight_b** in *Text and picture together*: 0 is only the text, 1 is only the picture.
- **strength** in *Repaint*: Kandinsky works best at 0.3 to 0.6.

Width and height must be multiples of 64: 768 x 768 here.

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
            prompt="a large orange flower++ on a blue background, soft light",
            negative_prompt="drawing",
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


def kandinsky22_mix() -> Sheet:
    sheet = Sheet(
        "kandinsky22_mix_image_and_text",
        note=f"""# Half a picture, half a text: Kandinsky 2.2

Kandinsky's decoder paints from an image embedding: a description of a picture in numbers. *What the picture shows* makes one from
a picture, *What the text says* makes one from a text, and *Half and half* is their mean. The decoder then paints something new: it
uses the content of the picture, not its pixels.

**Try**
- **weight_b** in *Half and half*: 0 is only the picture, 1 is only the text.
- Another **seed** in *Paint*: another picture from the same mixture.
- A second picture instead of the text, through another *Image Prompt*.
- A third prompt: mix it with the mixture.

Width and height must be multiples of 64: 768 x 768 here.

In the diffusers documentation: [Kandinsky]({KANDINSKY_GUIDE}), *Interpolation*.
""",
    )
    with sheet.column("1 Load"):
        prior = hub_model(sheet, "Kandinsky prior", KANDINSKY_PRIOR)
        decoder = hub_model(sheet, "Kandinsky decoder", KANDINSKY)
        picture = example_picture(sheet)
    with sheet.column("2 Picture and text"):
        seen = sheet.add("RelayImagePrompt", "What the picture shows", prior=prior, image=picture)
        text = sheet.add(
            "RelayKandinskyPrior",
            "What the text says",
            prior=prior,
            prompt="a large red star+ on a yellow background, soft light",
            negative_prompt="drawing",
            steps=25,
            guidance_scale=4.0,
            seed=35,
        )
        prompt = sheet.add("RelayMixPrompts", "Half and half", prompt_a=seen, prompt_b=text, weight_b=0.5)
    with sheet.column("3 Paint"):
        latent = sheet.add(
            "RelayTextToImage",
            "Paint",
            model=decoder,
            prompt=prompt,
            width=768,
            height=768,
            batch_size=1,
            steps=50,
            guidance_scale=4.0,
            seed=35,
        )
    with sheet.column("4 Decode and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=decoder, latent=latent)
        sheet.add("SaveImage", "The new picture", images=image, filename_prefix="relay/kandinsky22_mix")
    return sheet


def kandinsky22_depth() -> Sheet:
    sheet = Sheet(
        "kandinsky22_depth_hint",
        note=f"""# Follow a depth map: Kandinsky 2.2

Kandinsky has a separate decoder for depth maps. The prior describes what to paint, and the **hint** says where: the depth map
sets what is near and what is far. There is no picture to start from.

**Load your own depth map in *The depth map***: near is bright, far is dark. The example picture is only there so that the
workflow runs. A depth node of another pack can make a depth map from your picture.

**Try**
- Another **seed** in *Paint*: the same shapes, another picture.
- Another prompt: the depth map stays.
- *Image Prompt* instead of *What to paint*: the look of one picture, the shapes of another.
- *Image to Image (Diffusers)* instead of *Paint*: it takes the same hint, and a picture to start from.

Width and height must be multiples of 64: 512 x 512 here, and 768 x 768 is finer. The depth decoder always needs a hint; the
other decoder takes none.

In the diffusers documentation: [Kandinsky]({KANDINSKY_GUIDE}), *ControlNet*.
""",
    )
    with sheet.column("1 Load"):
        prior = hub_model(sheet, "Kandinsky prior", KANDINSKY_PRIOR)
        decoder = hub_model(sheet, "Kandinsky depth decoder", KANDINSKY_DEPTH)
        depth = sheet.add("LoadImage", "The depth map", image=EXAMPLE_PICTURE)
    with sheet.column("2 Prompt and hint"):
        prompt = sheet.add(
            "RelayKandinskyPrior",
            "What to paint",
            prior=prior,
            prompt="a large purple flower in a green field+, detailed",
            negative_prompt="drawing",
            steps=25,
            guidance_scale=4.0,
            seed=43,
        )
        depth = scaled(sheet, depth, 512)
        hint = sheet.add("RelayKandinskyHint", "Where to paint it", image=depth)
    with sheet.column("3 Paint"):
        latent = sheet.add(
            "RelayTextToImage",
            "Paint",
            model=decoder,
            prompt=prompt,
            control=hint,
            width=512,
            height=512,
            batch_size=1,
            steps=30,
            guidance_scale=4.0,
            seed=43,
        )
    with sheet.column("4 Decode and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=decoder, latent=latent)
        sheet.add("SaveImage", "The new picture", images=image, filename_prefix="relay/kandinsky22_depth_hint")
    return sheet
