"""Converts a pickle to a .safetensors file: python convert_pickle.py FILE

For embeddings, LoRAs, VAEs and checkpoints (.pt, .bin, .ckpt, .pth, or a pickle named .safetensors). The file is read with
weights_only=True: it may contain numbers and names only, and anything else is refused and never run. The new file is written
next to the old one, which is kept. The nodes of Diffusers Relay never run this script: you run it yourself, in a terminal.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

WRAPPERS = ("state_dict", "string_to_param", "params_ema", "params", "model_state_dict", "module")
"""The keys under which programs store the tensors if the file contains other data too."""
LEAST_TORCH = (2, 6)
"""In older versions, weights_only=True can be bypassed (CVE-2025-32434)."""


def convert(file: Path, name: Path) -> int:
    """Writes the tensors of ``file`` to ``name``. Returns their number.

    Raises:
        ValueError: the file can't be converted; the message says why.
    """
    import torch
    from safetensors.torch import save_file

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < LEAST_TORCH:
        raise ValueError(f"PyTorch {torch.__version__} can't read a pickle safely. Update it to 2.6 or newer.")
    if name.exists():
        raise ValueError(f"{name} already exists. Delete it, or choose another name: convert_pickle.py FILE NAME")
    try:
        with file.open("rb") as opened:  # given a path, torch would read a file named .safetensors as safetensors
            content = torch.load(opened, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{file} can't be read: it is not a PyTorch file, it is damaged, or it contains more than numbers and names, which could be code. "
            f"Use the .safetensors file that its author publishes. ({first})"
        ) from None
    tensors = tensors_in(content)
    if not tensors:
        raise ValueError(f"{file} contains no named tensors.")
    save_file(tensors, name)
    return len(tensors)


def tensors_in(content: Any) -> dict[str, Any]:
    """The tensors in a file's content by name, each a copy."""
    import torch

    if isinstance(content, torch.Tensor):
        return {"emb_params": content.detach().clone(memory_format=torch.contiguous_format)}
    if not isinstance(content, dict):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict) and (inner := tensors_in(content[wrapper])):
            # A1111 names an embedding "*" in a pickle and "emb_params" in a safetensors file.
            return {"emb_params": inner["*"]} if set(inner) == {"*"} else inner
    return {
        str(name): value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="the pickle")
    parser.add_argument("name", type=Path, nargs="?", help="name of the new file; default: FILE.safetensors")
    options = parser.parse_args()
    name = options.name or options.file.with_suffix(".safetensors")
    if name == options.file:
        name = options.file.with_name(f"{options.file.stem}_converted.safetensors")
    try:
        count = convert(options.file, name)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{name}: {count} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
