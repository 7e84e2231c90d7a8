"""Examples in which a picture says what to paint."""

from __future__ import annotations

from .parts import IP_ADAPTER, IP_ADAPTER_GUIDE, SD15, example_picture, hub_model, side_by_side
from .sheet import Sheet


def ip_adapter_style() -> Sheet:
    sheet = Sheet(
        "ip_adapter_style",
        note=f"""# The look of a picture, with an IP-Adapter

The same model, prompt and seed, painted four times: without the picture, and with it at a weight of 0.4, 0.7 and 1. The grid shows them
from left to right and from top to bottom. The prompt says what to paint, and the picture says how it should look.

An IP-Adapter reads a picture like a prompt: colors, style and what is there, but not where. A low weight leaves more to the prompt.

**Load your own picture** in *The picture to start from*. Only the square in its middle is used.

**Try**
- Colors in the prompt: at a low weight they win, at a high one the picture's do.
- An empty prompt: then the picture decides everything.
- **end** 0.5 in one of the *Weight* nodes: the picture steers only the first half of the steps.
- A **mask** there: the picture has an effect only where the mask is white.
- `models/ip-adapter-plus_sd15.safetensors` in *IP-Adapter*, which follows pictures more closely.

In the diffusers documentation: [IP-Adapter]({IP_ADAPTER_GUIDE}).
""",
    )
    weights = (0.4, 0.7, 1.0)
    with sheet.column("1 Load"):
        model = hub_model(sheet, "Stable Diffusion 1.5", SD15)
        adapter = sheet.add("RelayLoadIpAdapterFromHub", "IP-Adapter", repo_id=IP_ADAPTER)
        picture = example_picture(sheet)
    with sheet.column("2 Prompt and weights"):
        prompt = sheet.add("RelayEncodePrompt", "One prompt for all", model=model, prompt="a large triangle")
        shown = [
            sheet.add("RelayIpAdapterImage", f"Weight {weight:g}", ip_adapter=adapter, images=picture, weight=weight)
            for weight in weights
        ]
    with sheet.column("3 Paint four times"):
        latents = {
            label: sheet.add(
                "RelayTextToImage",
                label,
                model=model,
                prompt=prompt,
                width=512,
                height=512,
                batch_size=1,
                steps=20,
                guidance_scale=5.0,
                seed=81,
                **more,
            )
            for label, more in (
                ("without", {}),
                *((f"weight {weight:g}", {"ip_adapter": one}) for weight, one in zip(weights, shown)),
            )
        }
    side_by_side(sheet, model, latents)
    return sheet
