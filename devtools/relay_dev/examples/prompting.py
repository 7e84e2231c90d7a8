"""Examples that compare prompts side by side."""

from __future__ import annotations

from .parts import GUIDE, SD15, WEIGHTS_GUIDE, example_picture, hub_model, scaled, side_by_side
from .sheet import Sheet


def negative_prompt() -> Sheet:
    sheet = Sheet(
        "negative_prompt",
        note=f"""# What a negative prompt does

The same picture, model, prompt and seed, painted twice: on the left without a negative prompt, on the right with one.

A negative prompt names what to keep out of the picture. Guidance steers away from it, so it has no effect if
**guidance_scale** is 1 or less.

**Try**
- Name things in the left picture that you do not want.
- A weight: `black++` in the negative prompt suppresses it more strongly.
- **guidance_scale** 4 or 12 in both: the two pictures become more or less similar.

An empty negative prompt is the same as `None` in a diffusers script.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Negative prompt*.
""",
    )
    negatives = {
        "without": "",
        "with": "a white star on a black background",
    }
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        picture = example_picture(sheet)
        picture = scaled(sheet, picture, 512)
    with sheet.column("2 The same prompt twice"):
        prompts = {
            label: sheet.add(
                "RelayEncodePrompt",
                f"Prompt {label} a negative",
                model=model,
                prompt="a large star, soft light, detailed",
                negative_prompt=negative,
            )
            for label, negative in negatives.items()
        }
    with sheet.column("3 Repaint twice"):
        latents = {
            label: sheet.add(
                "RelayImageToImage",
                f"Repaint {label}",
                model=model,
                prompt=prompt,
                image=picture,
                strength=0.8,
                steps=30,
                guidance_scale=7.5,
                seed=33,
            )
            for label, prompt in prompts.items()
        }
    side_by_side(sheet, model, latents)
    return sheet


def weighted_prompt() -> Sheet:
    sheet = Sheet(
        "weighted_prompt",
        note=f"""# What weights in a prompt do

The same model, seed and words, painted four times. The grid shows them from left to right and from top to bottom:

1. *Less*: `red--` has the weight 0.81.
2. *Unchanged*: every word has the weight 1.
3. *More*: `red++` has the weight 1.21.
4. *Blend*: two prompts mixed, 60 % of the first and 40 % of the second.

**Try**
- `(red)1.4` sets the weight as a number, and `(red house)1.4` sets one weight for several words.
- `("a red house", "soft light").and(1, 0.7)` encodes two texts separately and joins them.
- **syntax** *plain*: `++` and brackets are then plain text.

Weights far from 1 can break the picture.

In the diffusers documentation: [Prompt weighting]({WEIGHTS_GUIDE}).
""",
    )
    house = "a large {} house in a green field, soft light, detailed"
    texts = {
        "less": house.format("red--"),
        "unchanged": house.format("red"),
        "more": house.format("red++"),
        "blend": f'("{house.format("red")}", "a large white tent on a blue sea").blend(0.6, 0.4)',
    }
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
    with sheet.column("2 Four prompts"):
        prompts = {
            label: sheet.add(
                "RelayEncodePrompt",
                f"Red: {label}",
                model=model,
                prompt=text,
                negative_prompt="drawing",
            )
            for label, text in texts.items()
        }
    with sheet.column("3 Paint four times"):
        latents = {
            label: sheet.add(
                "RelayTextToImage",
                f"Paint: {label}",
                model=model,
                prompt=prompt,
                width=512,
                height=512,
                batch_size=1,
                steps=25,
                guidance_scale=7.5,
                seed=34,
            )
            for label, prompt in prompts.items()
        }
    side_by_side(sheet, model, latents)
    return sheet
