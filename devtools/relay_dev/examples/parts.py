"""Parts that several examples share: models, documentation pages, and groups of nodes."""

from __future__ import annotations

from collections.abc import Mapping

from .sheet import Output, Sheet

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SD15_INPAINTING = "stable-diffusion-v1-5/stable-diffusion-inpainting"
COMIC = "ogkalu/Comic-Diffusion"
PIXEL = "kohbanye/pixel-art-style"
ELDEN_RING = "nitrosocke/elden-ring-diffusion"
DEPTH_CONTROLNET = "lllyasviel/control_v11f1p_sd15_depth"
IP_ADAPTER = "h94/IP-Adapter"
SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
SDXL_REFINER = "stabilityai/stable-diffusion-xl-refiner-1.0"
KANDINSKY_PRIOR = "kandinsky-community/kandinsky-2-2-prior"
KANDINSKY = "kandinsky-community/kandinsky-2-2-decoder"
KANDINSKY_DEPTH = "kandinsky-community/kandinsky-2-2-controlnet-depth"
X2_UPSCALER = "stabilityai/sd-x2-latent-upscaler"
X4_UPSCALER = "stabilityai/stable-diffusion-x4-upscaler"
NATIVE_SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
LORA_FILE = "pixel-art-lora.safetensors"
LCM_LORA_FILE = "lcm-lora-sdv1-5.safetensors"
EXAMPLE_PICTURE = "example.png"

GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/img2img"
SDXL_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/sdxl"
KANDINSKY_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/kandinsky"
INPAINT_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/inpaint"
LORA_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/loading_adapters"
LCM_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/inference_with_lcm"
PAG_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/pag"
IP_ADAPTER_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/ip_adapter"
WEIGHTS_GUIDE = "https://huggingface.co/docs/diffusers/using-diffusers/weighted_prompts"


def hub_model(sheet: Sheet, title: str, repo_id: str) -> Output:
    return sheet.add("RelayLoadModelFromHub", title, repo_id=repo_id)


def example_picture(sheet: Sheet) -> Output:
    """The picture that every ComfyUI has in its input folder."""
    return sheet.add("LoadImage", "The picture to start from", image=EXAMPLE_PICTURE)


def scaled(sheet: Sheet, picture: Output, size: int, *, title: str = "") -> Output:
    """The picture scaled to a square of this side in pixels."""
    return sheet.add(
        "ImageScale",
        title or f"Scale to {size} x {size}",
        image=picture,
        upscale_method="lanczos",
        width=size,
        height=size,
        crop="center",
    )


def side_by_side(sheet: Sheet, model: Output, latents: Mapping[str, Output]) -> None:
    """Columns 4 and 5 of a comparison: decodes each latent, and saves all pictures in one grid, two per row.

    `latents`: label -> latent; two or four of them.
    """
    with sheet.column("4 Decode"):
        images = [
            sheet.add("RelayDecode", f"Picture: {label}", model=model, latent=latent)
            for label, latent in latents.items()
        ]
    with sheet.column("5 Grid and save"):
        names = ("images", *(f"image_{number}" for number in range(2, 10)))
        grid = sheet.add("RelayImageGrid", "All in one", **dict(zip(names, images)), rows=len(images) // 2, columns=2)
        sheet.add("SaveImage", "The grid", images=grid, filename_prefix=f"relay/{sheet.file}")
