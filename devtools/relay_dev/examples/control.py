"""Examples with ControlNets."""

from __future__ import annotations

from .parts import DEPTH_CONTROLNET, ELDEN_RING, EXAMPLE_PICTURE, GUIDE, SD15, example_picture, hub_model, scaled
from .sheet import Sheet


def controlnet_depth_then_restyle() -> Sheet:
    sheet = Sheet(
        "controlnet_depth_then_restyle",
        note=f"""# A depth map keeps the shapes, and a second model restyles

Stable Diffusion 1.5 repaints the picture, and a depth ControlNet keeps near and far as in the depth map. So the composition
stays even at a high strength. The latent then passes unchanged to a second model, which applies its own style. This model
needs the words `elden ring style` in its prompt.

**Load your own depth map in *The depth map***: near is bright, far is dark. The example picture is only there so that the
workflow runs. A depth node of another pack can make a depth map from your picture.

**Try**
- **conditioning_scale** in *Use the depth map*: 0 turns it off, 0.5 follows it loosely.
- **end** 0.5: the map only steers the first half of the steps, which set the shapes.
- **strength** in *Restyle*: 0.3 changes little; above 0.6 the shapes drift, because no ControlNet keeps them in this step.
- Another ControlNet of the same family, or two in a row.

The pack loads safetensors only. If a model is published as pickles, as *Elden Ring* may be, the loader says how to convert it.

In the diffusers documentation: [Image-to-image]({GUIDE}), *ControlNet*.
""",
    )
    negative = "drawing"
    subject = "a large red flower in a green field"
    with sheet.column("1 Load"):
        picture = example_picture(sheet)
        depth = sheet.add("LoadImage", "The depth map", image=EXAMPLE_PICTURE)
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        controlnet = sheet.add("RelayLoadControlNetFromHub", "Depth ControlNet", repo_id=DEPTH_CONTROLNET)
        restyler = hub_model(sheet, "Elden Ring", ELDEN_RING)
    with sheet.column("2 Size and prompts"):
        picture = scaled(sheet, picture, 512)
        depth = scaled(sheet, depth, 512, title="Scale the depth map too")
        prompt = sheet.add(
            "RelayEncodePrompt",
            "What to paint",
            model=model,
            prompt=f"{subject}, detailed, soft light",
            negative_prompt=negative,
        )
        style = sheet.add(
            "RelayEncodePrompt",
            "In which style",
            model=restyler,
            prompt=f"elden ring style+, {subject}",
            negative_prompt=negative,
        )
    with sheet.column("3 Paint along the depth map"):
        control = sheet.add(
            "RelayApplyControlNet", "Use the depth map", controlnet=controlnet, image=depth, conditioning_scale=1.0
        )
        painted = sheet.add(
            "RelayImageToImage",
            "Paint",
            model=model,
            prompt=prompt,
            image=picture,
            control=control,
            strength=0.8,
            steps=30,
            guidance_scale=7.5,
            seed=41,
        )
    with sheet.column("4 Restyle"):
        restyled = sheet.add(
            "RelayImageToImage",
            "Restyle",
            model=restyler,
            prompt=style,
            latent=painted,
            strength=0.45,
            steps=30,
            guidance_scale=10.0,
            seed=42,
        )
        before = sheet.add("RelayDecode", "Before the restyling", model=model, latent=painted)
        sheet.add("PreviewImage", "Before", images=before)
    with sheet.column("5 Decode and save"):
        image = sheet.add("RelayDecode", "Latent to picture", model=restyler, latent=restyled)
        sheet.add("SaveImage", "After", images=image, filename_prefix="relay/controlnet_depth_then_restyle")
    return sheet
