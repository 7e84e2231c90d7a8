"""Examples with LoRAs."""

from __future__ import annotations

from .parts import LCM_GUIDE, LCM_LORA_FILE, LORA_FILE, LORA_GUIDE, SD15, hub_model, side_by_side
from .sheet import Sheet


def lora_strength() -> Sheet:
    sheet = Sheet(
        "lora_strength",
        note=f"""# What a LoRA does, and how strongly

The same model, prompt and seed, painted four times: without the LoRA, at half strength, at full strength, and at full strength in
the UNet but not in the text encoder. The grid shows them from left to right and from top to bottom.

**Choose your own file** in the four *LoRA* nodes: one for Stable Diffusion 1.5, in `models/loras`. The current name is only an
example. Many LoRAs need a trigger word in the prompt.

**Try**
- **strength** 0.7, 1.3, or below 0, which steers away from what the LoRA has learned.
- Only **text_strength**. If the file has no part for the text encoder, the pictures in the second row are equal.
- A second *Load LoRA (Diffusers)* after the first, to use both together.
- SDXL base instead of Stable Diffusion 1.5, with a LoRA for SDXL, at 1024 x 1024.

The model's weights are in memory once. Each branch has its own LoRA, and its prompt is encoded with it.

In the diffusers documentation: [Load adapters]({LORA_GUIDE}), *LoRA*.
""",
    )
    branches = (
        ("strength 0", 0.0, 0.0),
        ("strength 0.5", 0.5, 0.5),
        ("strength 1", 1.0, 1.0),
        ("strength 1, text 0", 1.0, 0.0),
    )
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        adapted = [
            sheet.add(
                "RelayLoadLora",
                f"LoRA: {label}",
                model=model,
                lora=LORA_FILE,
                strength=strength,
                text_strength=text_strength,
            )
            for label, strength, text_strength in branches
        ]
    with sheet.column("2 Prompt"):
        prompts = [
            sheet.add(
                "RelayEncodePrompt",
                f"Prompt: {label}",
                model=adapted[row],
                prompt="a large yellow balloon under a blue sky, pixelartstyle",
                negative_prompt="drawing",
            )
            for row, (label, _, _) in enumerate(branches)
        ]
    with sheet.column("3 Paint four times"):
        latents = {
            label: sheet.add(
                "RelayTextToImage",
                f"Paint: {label}",
                model=adapted[row],
                prompt=prompts[row],
                width=512,
                height=512,
                batch_size=1,
                steps=30,
                guidance_scale=7.5,
                seed=44,
            )
            for row, (label, _, _) in enumerate(branches)
        }
    side_by_side(sheet, model, latents)
    return sheet


def lcm_in_four_steps() -> Sheet:
    sheet = Sheet(
        "lcm_in_4_steps",
        note=f"""# A picture in four steps, with an LCM LoRA

The same model, prompt and seed, painted twice: on the left in 30 steps as usual, on the right in 4 steps of a latent consistency
model (LCM). An LCM LoRA turns a Stable Diffusion model into one.

Three things belong together, and all are needed:
- **The LoRA.** Download `pytorch_lora_weights.safetensors` of `latent-consistency/lcm-lora-sdv1-5`, and save it as
  `models/loras/{LCM_LORA_FILE}`.
- **LCMScheduler** in *The LCM scheduler*.
- **guidance_scale** 1, at most 2. Guidance is part of what the LoRA has learned. At 1 the negative prompt has no effect, and a step
  takes half the time.

**Try**
- **steps** 2 to 8 in *Four steps*.
- Other models of the same kind, such as comic or pixel art ones: the LoRA works with them too.
- A style LoRA after the LCM LoRA, at a **strength** of 0.8.
- A complete LCM, such as `SimianLuo/LCM_Dreamshaper_v7`: it needs neither the LoRA nor the scheduler node.

In the diffusers documentation: [Latent Consistency Model]({LCM_GUIDE}), *LoRA*.
""",
    )
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        fast = sheet.add(
            "RelayLoadLora", "The LCM LoRA", model=model, lora=LCM_LORA_FILE, strength=1.0, text_strength=1.0
        )
        fast = sheet.add("RelaySetScheduler", "The LCM scheduler", model=fast, scheduler="LCMScheduler")
    with sheet.column("2 Prompt"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "One prompt for both",
            model=model,
            prompt="a large orange star on a purple background, detailed",
        )
    with sheet.column("3 Paint twice"):
        latents = {
            label: sheet.add(
                "RelayTextToImage",
                label,
                model=with_model,
                prompt=prompt,
                width=512,
                height=512,
                batch_size=1,
                steps=steps,
                guidance_scale=guidance,
                seed=61,
            )
            for label, with_model, steps, guidance in (
                ("30 steps", model, 30, 7.5),
                ("Four steps", fast, 4, 1.0),
            )
        }
    side_by_side(sheet, model, latents)
    return sheet
