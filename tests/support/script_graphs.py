"""A small graph for each kind of run that can be written as a script, and changes of its script that must show in its picture."""

from __future__ import annotations

from collections.abc import Mapping

from reference import inpaint_scripts, kandinsky_depth, scripts
from relay_host.server import HostServer

from .graph import Graph, Out

LONG = "an old red lighthouse on a cliff above the sea, in the evening, with a small boat in front of it and many birds"
Changes = Mapping[str, str]
"""Text in the script -> what it is replaced by."""


def image_to_image(server: HostServer) -> tuple[Graph, Changes]:
    graph = Graph()
    picture = graph.picture(server, scripts.soft_picture(150, 100), "script-soft.png")
    small = graph.add("ImageScale", image=picture, upscale_method="lanczos", width=96, height=64, crop="center")
    model = graph.load("sd15")
    latent = graph.image_to_image(
        model, graph.encode(model, "a (red)1.4 cat, blue++ sky", LONG), image=small, strength=0.6, eta=0.0
    )
    graph.save(graph.decode(model, latent))
    return graph, {
        "strength=0.6": "strength=0.8",
        "(red)1.4": "(red)1.0",
        "num_inference_steps=5": "num_inference_steps=6",
        "guidance_scale=7.5": "guidance_scale=7",
        "manual_seed(0)": "manual_seed(1)",
        '"lanczos"': '"bilinear"',
        "many birds": "no birds",
    }


def batch_with_a_mask(server: HostServer) -> tuple[Graph, Changes]:
    graph = Graph()
    model = graph.load("sd15")
    prompt = graph.encode(model, "a cat", "a dog")
    first = graph.text_to_image(model, prompt, batch_size=2, seed=2**64 - 1)
    larger = graph.add("LatentUpscale", samples=first, upscale_method="bislerp", width=96, height=64, crop="disabled")
    mask = graph.add("SolidMask", value=1.0, width=48, height=48)
    whole = graph.add("SolidMask", value=0.0, width=96, height=64)
    mask = graph.add("MaskComposite", destination=whole, source=mask, x=8, y=8, operation="add")
    grown = graph.add("GrowMask", mask=mask, expand=5, tapered_corners=True)
    masked = graph.add("SetLatentNoiseMask", samples=larger, mask=grown)
    chosen = graph.add(
        "RelaySetScheduler",
        model=model,
        scheduler="DPMSolverMultistepScheduler",
        sigmas="karras",
        timestep_spacing="trailing",
    )
    graph.save(graph.decode(model, graph.image_to_image(chosen, prompt, latent=masked, strength=0.7)))
    return graph, {
        "use_karras_sigmas=True": "use_karras_sigmas=False",
        ", 5, True)": ", 9, True)",
        ", 0)": ", 1)",
        "num_images_per_prompt=2,\n    width": "num_images_per_prompt=1,\n    width",
    }


def sdxl(server: HostServer) -> tuple[Graph, Changes]:
    graph = Graph()
    base, refiner = graph.load("sdxl_base"), graph.load("sdxl_refiner")
    sized = graph.add(
        "RelaySdxlSize",
        prompt=graph.encode(base, "a red++ cat"),
        **{"original_width": 48, "original_height": 32, "crop_left": 5, "crop_top": 90},
        **{"target_width": 0, "target_height": 0},
    )
    begun = graph.text_to_image(base, sized, width=96, guidance_scale=5.0, denoising_end=0.6, steps=5)
    done = graph.image_to_image(
        refiner, graph.encode(refiner, "a cat", "a dog"), latent=begun, steps=5, aesthetic_score=7.0
    )
    graph.save(graph.decode(refiner, done))
    return graph, {
        "denoising_end=0.6": "denoising_end=0.8",
        "aesthetic_score=7": "aesthetic_score=4",
        "crops_coords_top_left=(90, 5)": "crops_coords_top_left=(0, 0)",
        "red++": "red",
    }


def kandinsky(server: HostServer) -> tuple[Graph, Changes]:
    """From Stable Diffusion's space into Kandinsky's, with a size that is not square."""
    graph = Graph()
    sd15, prior, decoder = graph.load("sd15"), graph.load("kandinsky_prior"), graph.load("kandinsky_decoder")
    first = graph.text_to_image(sd15, graph.encode(sd15, "a cat"), width=128)
    text = graph.prior(prior, "a red++ cat", "a dog", seed=3)
    picture = graph.add(
        "RelayImagePrompt", prior=prior, image=graph.picture(server, scripts.soft_picture(), "soft.png")
    )
    mixed = graph.add("RelayMixPrompts", prompt_a=text, prompt_b=picture, weight_b=0.3)
    graph.save(graph.decode(decoder, graph.image_to_image(decoder, mixed, latent=first, strength=0.6)))
    return graph, {"red++": "red", ", 0.3)": ", 0.4)", '"a dog"': '"a cow"', "strength=0.6": "strength=0.8"}


def kandinsky_depth_map(server: HostServer) -> tuple[Graph, Changes]:
    graph = Graph()
    prior, decoder = graph.load("kandinsky_prior"), graph.load("kandinsky_depth")
    hint = graph.hint(graph.picture(server, kandinsky_depth.depth_map(96, 64), "script-depth.png"))
    prompt = graph.prior(prior, "a cat")
    first = graph.text_to_image(decoder, prompt, width=128, guidance_scale=4.0, control=hint)
    graph.save(graph.decode(decoder, graph.image_to_image(decoder, prompt, latent=first, strength=0.6, control=hint)))
    return graph, {
        "strength=0.6": "strength=0.8",
        "guidance_scale=4,\n    generator": "guidance_scale=5,\n    generator",
    }


def inpainting(server: HostServer) -> tuple[Graph, Changes]:
    graph = Graph()
    model = graph.load("sd15_inpaint")
    picture = graph.picture(server, scripts.soft_picture(96, 64), "script-wide.png")
    mask = graph.mask(server, inpaint_scripts.mask_picture(96, 64), "script-mask.png")
    latent = graph.inpaint(model, graph.encode(model, "a cat"), mask, image=picture, strength=0.8)
    painted = graph.decode(model, latent)
    graph.save(
        graph.add("ImageCompositeMasked", destination=picture, source=painted, x=3, y=0, resize_source=False, mask=mask)
    )
    return graph, {"strength=0.8": "strength=0.6", ", 3, 0,": ", 2, 0,", '"R"': '"A"'}


def controlnet_and_lora(server: HostServer) -> tuple[Graph, Changes]:
    graph = Graph()
    model = graph.load("sd15")
    net = graph.add("RelayLoadControlNet", controlnet="sd15_depth", dtype="float32")
    picture = graph.picture(server, scripts.soft_picture(64, 64), "soft.png")
    control = graph.control(net, picture, conditioning_scale=0.7, end=0.8)
    pictures: dict[str, Out] = {}
    for name, strength in (("images", 0.0), ("image_2", 0.8)):
        changed = graph.add(
            "RelayLoadLora", model=model, lora="sd15_kohya.safetensors", strength=strength, text_strength=1.0
        )
        latent = graph.text_to_image(changed, graph.encode(changed, "a cat"), control=control)
        pictures[name] = graph.decode(changed, latent)
    graph.save(graph.add("RelayImageGrid", rows=1, columns=2, **pictures))
    return graph, {
        "controlnet_conditioning_scale=0.7": "controlnet_conditioning_scale=0.6",
        "control_guidance_end=0.8": "control_guidance_end=0.4",
        '"unet": 0.8': '"unet": 0.4',
    }


def upscaling(server: HostServer) -> tuple[Graph, Changes]:
    """A size that x2's UNet can't halve often enough, then x4 in tiles."""
    graph = Graph()
    sd15, x2, x4 = graph.load("sd15"), graph.load("x2_upscaler"), graph.load("x4_upscaler")
    first = graph.text_to_image(sd15, graph.encode(sd15, "a cat"), width=40, height=40)
    larger = graph.latent_upscale(x2, graph.encode(x2, "a cat"), first)
    graph.save(graph.super_resolution(x4, graph.encode(x4, "a cat"), latent=larger, steps=2, tile_size=64))
    return graph, {"noise_level=20": "noise_level=40", "InTiles(x4_upscaler.unet, 64)": "InTiles(x4_upscaler.unet, 72)"}


GRAPHS = {
    make.__name__: make
    for make in (
        *(image_to_image, batch_with_a_mask, sdxl, kandinsky, kandinsky_depth_map, inpainting),
        *(controlnet_and_lora, upscaling),
    )
}
