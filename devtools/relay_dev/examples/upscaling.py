"""Examples that upscale pictures."""

from __future__ import annotations

from .parts import GUIDE, SD15, X2_UPSCALER, X4_UPSCALER, example_picture, hub_model, scaled
from .sheet import Sheet


def image_to_x2_to_x4() -> Sheet:
    sheet = Sheet(
        "image_to_x2_to_x4",
        note=f"""# From a picture to eight times its size

Stable Diffusion 1.5 repaints a small picture, the latent upscaler doubles its size, and super-resolution makes the result four times as
large: 128 becomes 256, and 256 becomes 1024.

Between the first and the second model nothing is decoded. The third model reads pictures, so its node decodes the latent first.

Each model has its own text encoder, so each needs its own *Encode Prompt*. At **guidance_scale** 0 the latent upscaler ignores the
prompt.

*A faster scheduler* paints the large picture in 12 steps instead of 75 with the model's own scheduler.

**Try**
- 512 in *Scale to 128 x 128*: the result is 4096 pixels wide. **tile_size** keeps the memory use the same.
- **tile_size** 64: less memory, but each tile sees less of its surroundings. 0: the whole picture at once.
- **noise_level** 100: super-resolution invents more detail.
- Leave out a step: connect the picture to *Four times as large*.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Image-to-upscaler-to-super-resolution*.
""",
    )
    subject = "a large yellow sun on a black background"
    with sheet.column("1 Load"):
        models = [
            hub_model(sheet, title, repo_id)
            for title, repo_id in (
                ("Stable Diffusion 1.5", SD15),
                ("Upscaler x2", X2_UPSCALER),
                ("Upscaler x4", X4_UPSCALER),
            )
        ]
        fast = sheet.add(
            "RelaySetScheduler", "A faster scheduler", model=models[2], scheduler="DPMSolverMultistepScheduler"
        )
        loaded = example_picture(sheet)
    with sheet.column("2 Prompts and size"):
        texts = (
            ("To repaint", f"{subject}, detailed, soft light", "drawing"),
            ("For x2", subject, ""),
            ("For x4", f"{subject}, sharp focus, detailed", "drawing"),
        )
        prompts = [
            sheet.add("RelayEncodePrompt", title, model=models[row], prompt=text, negative_prompt=negative)
            for row, (title, text, negative) in enumerate(texts)
        ]
        picture = scaled(sheet, loaded, 128)
    with sheet.column("3 Repaint and enlarge"):
        repainted = sheet.add(
            "RelayImageToImage",
            "Repaint",
            model=models[0],
            prompt=prompts[0],
            image=picture,
            strength=0.5,
            steps=30,
            guidance_scale=7.5,
            seed=31,
        )
        latent = sheet.add(
            "RelayLatentUpscale", "Twice as large", model=models[1], prompt=prompts[1], latent=repainted, seed=32
        )
        image = sheet.add(
            "RelaySuperResolution",
            "Four times as large",
            model=fast,
            prompt=prompts[2],
            latent=latent,
            steps=12,
            guidance_scale=6.0,
            tile_size=128,
            seed=33,
        )
    with sheet.column("4 Save"):
        saved = sheet.add("SaveImage", "The large picture", images=image, filename_prefix="relay/image_to_x2_to_x4")
    sheet.as_app(
        (loaded, "image"),
        (prompts[0], "prompt"),
        (prompts[2], "prompt"),
        (repainted, "strength"),
        (image, "noise_level"),
        (image, "tile_size"),
        output=saved,
    )
    return sheet
