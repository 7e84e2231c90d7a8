"""Examples that combine the pack with ComfyUI's own nodes."""

from __future__ import annotations

from .parts import NATIVE_SD15, SD15, WEIGHTS_GUIDE, example_picture, hub_model, scaled
from .sheet import Sheet


def mixed_with_native_nodes() -> Sheet:
    sheet = Sheet(
        "mixed_with_comfyui_nodes",
        note=f"""# Together with ComfyUI's own nodes

One latent goes through nodes of both kinds:

1. *Repaint (diffusers)* turns the picture into a latent.
2. *Go on (ComfyUI)* is KSampler with the same model as a checkpoint. Its prompts come from *Encode Prompt*, so
Compel's weights work here too.
3. *Enlarge to 768 (ComfyUI)* is Upscale Latent.
4. *Repaint larger (diffusers)* adds detail.
5. *Latent to picture (ComfyUI)* is VAE Decode.

Nothing is decoded in between, because latents and prompts are ComfyUI's own types.

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
            prompt="a large (orange flower)1.2 on a blue sea, soft light+, detailed",
            negative_prompt="drawing",
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
