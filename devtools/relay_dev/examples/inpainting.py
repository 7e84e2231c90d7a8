"""Examples that repaint part of a picture."""

from __future__ import annotations

from .parts import INPAINT_GUIDE, SD15, SD15_INPAINTING, example_picture, hub_model, scaled
from .sheet import Sheet


def inpaint_a_part() -> Sheet:
    sheet = Sheet(
        "inpaint",
        note=f"""# Repaint part of a picture

The inpainting model of Stable Diffusion 1.5 repaints the masked area so that it fits the rest. White (1) is repainted; black (0)
is kept.

The mask here is a rectangle, so that the workflow runs without changes. **To use your own mask**, open *The picture to start from*
in the Mask Editor (right-click on the node), and connect its MASK to *Repaint what is masked* and to *Put it into the picture*. If
your picture is not square, bypass the scaling: any size works.

The unmasked area of the latent does not change. Decoding still changes it a little, as with any autoencoder, so the last node
pastes the repainted area into the original picture.

**Try**
- **strength** 0.6 to 0.9 in *Repaint what is masked*: keeps some of what is there.
- A plain model (Stable Diffusion 1.5, SDXL) instead of the inpainting model.
- Mask nodes in between: *GrowMask* for more space, *FeatherMask* before *Put it into the picture* for a softer edge.

In the diffusers documentation: [Inpainting]({INPAINT_GUIDE}), also *Preserving unmasked areas*.
""",
    )
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5 for inpainting", SD15_INPAINTING)
        picture = example_picture(sheet)
    with sheet.column("2 Prompt, size and mask"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "What to paint there",
            model=model,
            prompt="a large red balloon on a black background, detailed",
            negative_prompt="drawing",
        )
        picture = scaled(sheet, picture, 512)
        black = sheet.add("SolidMask", "Nothing is masked", value=0.0, width=512, height=512)
        white = sheet.add("SolidMask", "Except a rectangle", value=1.0, width=224, height=224)
        mask = sheet.add("MaskComposite", "The mask", destination=black, source=white, x=32, y=32, operation="add")
    with sheet.column("3 Repaint"):
        latent = sheet.add(
            "RelayInpaint",
            "Repaint what is masked",
            model=model,
            prompt=prompt,
            mask=mask,
            image=picture,
            strength=1.0,
            steps=30,
            guidance_scale=7.5,
            seed=51,
        )
    with sheet.column("4 Decode, put in and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=model, latent=latent)
        image = sheet.add(
            "ImageCompositeMasked",
            "Put it into the picture",
            destination=picture,
            source=image,
            mask=mask,
            x=0,
            y=0,
            resize_source=False,
        )
        sheet.add("SaveImage", "The new picture", images=image, filename_prefix="relay/inpaint")
    return sheet


def inpaint_softly() -> Sheet:
    sheet = Sheet(
        "inpaint_softly",
        note=f"""# Repaint more and more, from left to right

With **soft_mask**, the grey values of the mask say how much of the picture is repainted at each place (differential diffusion): white
from the first step on, grey only in the later steps, black not at all. So what is new grows out of what was there, without an edge.

The mask here fades over the whole width: black on the left, white on the right. Any model will do; it needs no inpainting model.

**To use your own mask**, open *The picture to start from* in the Mask Editor (right-click on the node), and connect its MASK to
*Softened* instead. Then the middle of what you mask is new, and its surroundings follow it.

**Try**
- **soft_mask** off: values from 0.5 up are repainted, the rest is kept, and there is an edge in the middle.
- **left** 200 in *Softened*: a shorter fade.
- *GrowMask* with a negative number before *Softened*, so that the fade is inside of what you masked.
- **strength** 0.8: nothing is repainted completely.

In the diffusers documentation: [Inpainting]({INPAINT_GUIDE}).
""",
    )
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        picture = example_picture(sheet)
    with sheet.column("2 Prompt, size and mask"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "What to paint there",
            model=model,
            prompt="a large red star on a blue background, detailed",
        )
        picture = scaled(sheet, picture, 512)
        white = sheet.add("SolidMask", "Everything is masked", value=1.0, width=512, height=512)
        mask = sheet.add("FeatherMask", "Softened", mask=white, left=512, top=0, right=0, bottom=0)
    with sheet.column("3 Repaint"):
        latent = sheet.add(
            "RelayInpaint",
            "Repaint as much as the mask says",
            model=model,
            prompt=prompt,
            mask=mask,
            image=picture,
            strength=1.0,
            steps=30,
            guidance_scale=7.5,
            seed=52,
            soft_mask=True,
        )
    with sheet.column("4 Decode and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=model, latent=latent)
        sheet.add("SaveImage", "The new picture", images=image, filename_prefix="relay/inpaint_softly")
    return sheet
