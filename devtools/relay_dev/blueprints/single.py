"""Blueprints with one model."""

from __future__ import annotations

from ..examples.parts import DEPTH_CONTROLNET, SD15, SD15_INPAINTING, hub_model
from .blueprint import Blueprint


def image_to_image() -> Blueprint:
    made = Blueprint(
        "Image to Image (SD1.5, Diffusers)",
        "Repaints a picture from a prompt, with Stable Diffusion 1.5 or any other model of the hub. The first run downloads the model.",
        ("img2img", "i2i", "image to image", "repaint", "diffusers"),
    )
    with made.sheet.column("1 Load and encode"):
        model = hub_model(made.sheet, "Model", SD15)
        prompt = made.sheet.add("RelayEncodePrompt", "Prompt", model=model, prompt="", negative_prompt="")
    with made.sheet.column("2 Repaint"):
        latent = made.sheet.add(
            "RelayImageToImage", "Repaint", model=model, prompt=prompt, strength=0.7, steps=30, seed=0
        )
        image = made.sheet.add("RelayDecode", "Decode", model=model, latent=latent)
    made.takes_all(latent, "image")
    made.takes_all(prompt, "prompt", "negative_prompt")
    made.takes_all(latent, "strength", "steps", "guidance_scale", "seed")
    made.takes_all(model, "repo_id")
    made.gives("image", image)
    return made


def text_to_image() -> Blueprint:
    made = Blueprint(
        "Text to Image (SD1.5, Diffusers)",
        "Paints a picture from a prompt, with Stable Diffusion 1.5 or any other model of the hub. The first run downloads the model.",
        ("txt2img", "t2i", "text to image", "generate", "diffusers"),
    )
    with made.sheet.column("1 Load and encode"):
        model = hub_model(made.sheet, "Model", SD15)
        prompt = made.sheet.add("RelayEncodePrompt", "Prompt", model=model, prompt="", negative_prompt="")
    with made.sheet.column("2 Paint"):
        latent = made.sheet.add("RelayTextToImage", "Paint", model=model, prompt=prompt, steps=30, seed=0)
        image = made.sheet.add("RelayDecode", "Decode", model=model, latent=latent)
    made.takes_all(prompt, "prompt", "negative_prompt")
    made.takes_all(latent, "width", "height", "steps", "guidance_scale", "seed")
    made.takes_all(model, "repo_id")
    made.gives("image", image)
    return made


def control_by_depth() -> Blueprint:
    made = Blueprint(
        "Control by Depth (SD1.5, Diffusers)",
        "Paints a picture from a prompt, with near and far as in a depth map, where near is bright. Width and height should be in the proportions of the "
        "depth map.",
        ("depth", "controlnet", "depth map", "txt2img", "diffusers"),
    )
    with made.sheet.column("1 Load and encode"):
        model = hub_model(made.sheet, "Model", SD15)
        prompt = made.sheet.add("RelayEncodePrompt", "Prompt", model=model, prompt="", negative_prompt="")
        controlnet = made.sheet.add("RelayLoadControlNetFromHub", "Depth ControlNet", repo_id=DEPTH_CONTROLNET)
    with made.sheet.column("2 Paint"):
        control = made.sheet.add("RelayApplyControlNet", "Depth map", controlnet=controlnet)
        latent = made.sheet.add(
            "RelayTextToImage", "Paint", model=model, prompt=prompt, control=control, steps=30, seed=0
        )
        image = made.sheet.add("RelayDecode", "Decode", model=model, latent=latent)
    made.takes("depth_map", (control, "image"))
    made.takes_all(prompt, "prompt", "negative_prompt")
    made.takes_all(control, "conditioning_scale")
    made.takes_all(latent, "width", "height", "steps", "guidance_scale", "seed")
    made.takes_all(model, "repo_id")
    made.gives("image", image)
    return made


def inpaint() -> Blueprint:
    made = Blueprint(
        "Inpaint (SD1.5, Diffusers)",
        "Repaints the masked part of a picture from a prompt, and leaves the rest of the picture exactly as it is.",
        ("inpainting", "mask", "fill", "replace", "img2img", "diffusers"),
    )
    with made.sheet.column("1 Load and encode"):
        model = hub_model(made.sheet, "Inpainting model", SD15_INPAINTING)
        prompt = made.sheet.add("RelayEncodePrompt", "Prompt", model=model, prompt="", negative_prompt="")
    with made.sheet.column("2 Repaint and put in"):
        latent = made.sheet.add("RelayInpaint", "Repaint", model=model, prompt=prompt, strength=1.0, steps=30, seed=0)
        image = made.sheet.add("RelayDecode", "Decode", model=model, latent=latent)
        whole = made.sheet.add(
            "ImageCompositeMasked", "Put into the picture", source=image, x=0, y=0, resize_source=True
        )
    made.takes("image", (latent, "image"), (whole, "destination"))
    made.takes("mask", (latent, "mask"), (whole, "mask"))
    made.takes_all(prompt, "prompt", "negative_prompt")
    made.takes_all(latent, "strength", "steps", "guidance_scale", "seed")
    made.takes_all(model, "repo_id")
    made.gives("image", whole)
    return made
