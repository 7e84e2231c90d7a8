"""The runs behind the nodes: text-to-image, image-to-image, inpainting, upscaling."""
