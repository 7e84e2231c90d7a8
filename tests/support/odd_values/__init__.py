"""Nodes for the tests, in the host: malformed images, masks and latents, as some faulty nodes output."""

import torch

KEY = "diffusers_relay"


def _picture(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _spoilt(value, *shape):
    spoilt = _picture(*shape)
    spoilt.view(-1)[0] = value
    return spoilt


IMAGES = {
    "plain": lambda: _picture(1, 64, 64, 3),
    "two": lambda: _picture(2, 40, 72, 3),
    "one pixel": lambda: _picture(1, 1, 1, 3),
    "empty batch": lambda: _picture(0, 64, 64, 3),
    "no width": lambda: _picture(1, 64, 0, 3),
    "seventeen": lambda: _picture(17, 16, 16, 3),
    "grey": lambda: _picture(1, 64, 64, 1),
    "alpha": lambda: _picture(1, 64, 64, 4),
    "two channels": lambda: _picture(1, 64, 64, 2),
    "five channels": lambda: _picture(1, 64, 64, 5),
    "three dimensions": lambda: _picture(64, 64, 3),
    "thin": lambda: _picture(1, 3, 90, 3),
    "nan": lambda: _spoilt(float("nan"), 1, 64, 64, 3),
    "infinite": lambda: _spoilt(float("inf"), 1, 64, 64, 3),
    "out of range": lambda: _picture(1, 64, 64, 3) * 9 - 4,
    "double": lambda: _picture(1, 64, 64, 3).double(),
    "half": lambda: _picture(1, 64, 64, 3).half(),
    "bytes": lambda: (_picture(1, 64, 64, 3) * 255).byte(),
}
MASKS = {
    "plain": lambda: (_picture(1, 64, 64) > 0.5).float(),
    "all": lambda: torch.ones(1, 64, 64),
    "nothing": lambda: torch.zeros(1, 64, 64),
    "another size": lambda: _picture(1, 33, 90),
    "two dimensions": lambda: _picture(64, 64),
    "four dimensions": lambda: _picture(1, 1, 64, 64),
    "seventeen": lambda: _picture(17, 16, 16),
    "empty batch": lambda: _picture(0, 64, 64),
    "one pixel": lambda: _picture(1, 1, 1),
    "nan": lambda: _spoilt(float("nan"), 1, 64, 64),
    "out of range": lambda: _picture(1, 64, 64) * 9 - 4,
}
LATENTS = {
    "plain": lambda: {"samples": torch.randn(1, 4, 8, 8)},
    "two": lambda: {"samples": torch.randn(2, 4, 8, 12)},
    "sixteen channels": lambda: {"samples": torch.randn(1, 16, 8, 8)},
    "video": lambda: {"samples": torch.randn(1, 4, 3, 8, 8)},
    "one pixel": lambda: {"samples": torch.randn(1, 4, 1, 1)},
    "odd": lambda: {"samples": torch.randn(1, 4, 7, 9)},
    "empty batch": lambda: {"samples": torch.randn(0, 4, 8, 8)},
    "seventeen": lambda: {"samples": torch.randn(17, 4, 4, 4)},
    "nan": lambda: {"samples": _spoilt(float("nan"), 1, 4, 8, 8)},
    "huge": lambda: {"samples": torch.full((1, 4, 8, 8), 1e30)},
    "no samples": lambda: {},
    "another's tag": lambda: {"samples": torch.randn(1, 4, 8, 8), KEY: "nonsense"},
    "a mask": lambda: {"samples": torch.randn(1, 4, 8, 8), "noise_mask": torch.rand(1, 64, 64)},
    "a broken mask": lambda: {"samples": torch.randn(1, 4, 8, 8), "noise_mask": torch.full((1, 64, 64), float("nan"))},
    "indices": lambda: {"samples": torch.randn(2, 4, 8, 8), "batch_index": [3, 9]},
    "too few indices": lambda: {"samples": torch.randn(2, 4, 8, 8), "batch_index": [3]},
}


def _node(kind, values):
    class Odd:
        CATEGORY = "tests"
        RETURN_TYPES = (kind,)
        FUNCTION = "give"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"kind": (list(values),)}}

        def give(self, kind):
            return (values[kind](),)

    return Odd


NODE_CLASS_MAPPINGS = {
    "OddImage": _node("IMAGE", IMAGES),
    "OddMask": _node("MASK", MASKS),
    "OddLatent": _node("LATENT", LATENTS),
}
