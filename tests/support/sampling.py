"""A graph for each kind of denoising run, by name."""

from __future__ import annotations

from reference import inpaint_scripts, kandinsky_depth, scripts
from relay_host.server import HostServer
from support.graph import Graph, Out
from support.versions import WITH_SD3_BLOCKS


def sampling_graph(server: HostServer, kind: str, steps: int) -> tuple[Graph, Out, Out]:
    """(graph, the node that denoises, the node that saves)"""
    graph = Graph()
    image = graph.picture(server, scripts.soft_picture(), "soft.png")
    if kind.startswith("x"):
        return upscaling_graph(server, kind, steps)
    if kind.startswith("kandinsky"):
        prior = graph.load("kandinsky_prior")
        names = {"depth": "kandinsky_depth", "inpaint": "kandinsky_inpaint"}
        model = graph.load(names.get(kind.split()[1] if " " in kind else "", "kandinsky_decoder"))
        prompt = graph.prior(prior, "a cat", steps=steps if kind == "kandinsky prior" else 2)
    else:
        model = graph.load(
            {"sd15": "sd15", "refiner": "sdxl_refiner", "text": "sdxl_base", "sd3": "sd3"}[kind.split()[0]]
        )
        prompt = graph.encode(model, "a cat")
    few = 2 if kind == "kandinsky prior" else steps
    control = {}
    if "depth" in kind:
        control = {"control": graph.hint(graph.picture(server, kandinsky_depth.depth_map(), "depth.png"))}
    if kind.endswith("inpaint"):
        mask = graph.mask(server, inpaint_scripts.mask_picture(), "mask-64x64.png")
        latent = graph.inpaint(model, prompt, mask, image=image, steps=few)
    elif kind.endswith("to image"):
        latent = graph.text_to_image(model, prompt, steps=few, **control)
    else:
        latent = graph.image_to_image(model, prompt, image=image, steps=few, strength=1.0, **control)
    node = prompt if kind == "kandinsky prior" else latent
    return graph, node, graph.save(graph.decode(model, latent))


def upscaling_graph(server: HostServer, kind: str, steps: int) -> tuple[Graph, Out, Out]:
    graph = Graph()
    size = (72, 64) if kind == "x4 in tiles" else (32, 32)
    image = graph.picture(server, scripts.soft_picture(*size), f"soft-{size[0]}x{size[1]}.png")
    model = graph.load(f"{kind[:2]}_upscaler")
    prompt = graph.encode(model, "a cat")
    if kind == "x2":
        latent = graph.add("RelayEncode", model=model, image=image, seed=0)
        node = graph.latent_upscale(model, prompt, latent, steps=steps)
        return graph, node, graph.save(graph.decode(model, node))
    tile_size = 64 if kind == "x4 in tiles" else 0
    node = graph.super_resolution(model, prompt, image=image, steps=steps, tile_size=tile_size)
    return graph, node, graph.save(node)


KINDS = ["sd15", "refiner", "text to image", "kandinsky", "kandinsky to image", "kandinsky prior"]
KINDS += ["kandinsky depth", "kandinsky depth to image", "sd15 inpaint", "kandinsky inpaint", "x2", "x4", "x4 in tiles"]
KINDS += ["sd3"] if WITH_SD3_BLOCKS else []
