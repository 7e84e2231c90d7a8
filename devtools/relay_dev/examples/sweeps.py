"""Examples that compare several values of one input side by side."""

from __future__ import annotations

from collections.abc import Sequence

from .parts import GUIDE, PAG_GUIDE, SD15, example_picture, hub_model, scaled, side_by_side
from .sheet import Sheet


def strength_sweep() -> Sheet:
    sheet = Sheet(
        "strength_sweep",
        note=f"""# What strength does

The same picture, model, prompt and seed, painted four times: with strength 0.4, 0.6, 0.8 and 1.0. Only the number in the four
*Strength* nodes differs. The grid shows them from left to right and from top to bottom.

At 1.0, nothing of the picture is left. At 0.4, only 12 of the 30 steps run, so it is also the fastest.

**Try**
- Keep strength the same and change **guidance_scale** or the **seed**.
- 1 row and 4 columns in *All in one*.

The model is loaded once, and the prompt is encoded once.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Strength*.
""",
    )
    return _swept(
        sheet,
        "strength",
        (0.4, 0.6, 0.8, 1.0),
        prompt="a large yellow flower+ in a green field, soft light, detailed",
        settings={"guidance_scale": 7.5, "seed": 23},
    )


def guidance_sweep() -> Sheet:
    sheet = Sheet(
        "guidance_sweep",
        note=f"""# What guidance_scale does

The same picture, model, prompt and seed, painted four times: with guidance_scale 1, 4, 7.5 and 12. Only the number in the four
*Guidance* nodes differs. The grid shows them from left to right and from top to bottom.

A low value follows the prompt loosely, a high value closely. At 1 guidance is off: the negative prompt has no effect, and
the run takes half the time. Very high values give harsh colors.

**Try**
- Other values in the four nodes.
- A lower **strength** in all four nodes: guidance then matters less.
- 1 row and 4 columns in *All in one*.

The model is loaded once, and the prompt is encoded once.

In the diffusers documentation: [Image-to-image]({GUIDE}), *Guidance scale*.
""",
    )
    return _swept(
        sheet,
        "guidance_scale",
        (1.0, 4.0, 7.5, 12.0),
        prompt="a large red flower+ on a blue sea, sharp focus, detailed",
        settings={"strength": 0.8, "seed": 32},
    )


def pag_against_none() -> Sheet:
    sheet = Sheet(
        "pag_against_none",
        note=f"""# What perturbed attention guidance does

The same model, prompt and seed, painted four times. Above without perturbed attention guidance (PAG), below with it; on the left with
guidance_scale 1, on the right with 5.

PAG steers away from what the model paints if its self-attention is switched off in some layers: a picture without structure. So
outlines become clearer, also without a prompt or with guidance_scale 1. A step with both kinds of guidance takes half as long again.

**Try**
- **pag_scale** 1 to 5 in *PAG*. Too much makes pictures flat and colors harsh.
- **pag_layers** `mid` (the node's default), `up_blocks`, or `down_blocks.2, mid`: the layers whose attention is switched off.
  What suits depends on the model.
- An empty prompt: guidance_scale then does nothing, and PAG still does.
- **guidance_rescale** 0.7 in *PAG*, if colors become too strong.

In the diffusers documentation: [Perturbed-attention guidance]({PAG_GUIDE}).
""",
    )
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        guided = sheet.add(
            "RelaySetGuidance", "PAG", model=model, guidance_rescale=0.0, pag_scale=2.5, pag_layers="up_blocks.1"
        )
    with sheet.column("2 Prompt"):
        prompt = sheet.add(
            "RelayEncodePrompt",
            "One prompt for all",
            model=model,
            prompt="a large purple star on a green background, detailed",
        )
    with sheet.column("3 Paint four times"):
        latents = {
            f"{'PAG' if with_model is guided else 'no PAG'}, guidance {scale:g}": sheet.add(
                "RelayTextToImage",
                f"{'PAG' if with_model is guided else 'No PAG'}, guidance {scale:g}",
                model=with_model,
                prompt=prompt,
                width=512,
                height=512,
                batch_size=1,
                steps=20,
                guidance_scale=scale,
                seed=71,
            )
            for with_model in (model, guided)
            for scale in (1.0, 5.0)
        }
    side_by_side(sheet, model, latents)
    return sheet


def _swept(
    sheet: Sheet, swept: str, values: Sequence[float], *, prompt: str, settings: dict[str, float | int]
) -> Sheet:
    """Repaints the example picture with the input `swept` at four `values`, and shows the results in a 2 x 2 grid."""
    name = swept.removesuffix("_scale")
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        picture = example_picture(sheet)
    with sheet.column("2 Prompt and size"):
        encoded = sheet.add(
            "RelayEncodePrompt",
            "One prompt for all",
            model=model,
            prompt=prompt,
            negative_prompt="drawing",
        )
        picture = scaled(sheet, picture, 512)
    with sheet.column("3 Repaint four times"):
        latents = {
            f"{name} {value:g}": sheet.add(
                "RelayImageToImage",
                f"{name.capitalize()} {value:g}",
                model=model,
                prompt=encoded,
                image=picture,
                steps=30,
                **{swept: value},
                **settings,
            )
            for value in values
        }
    side_by_side(sheet, model, latents)
    return sheet
