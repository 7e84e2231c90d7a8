"""Makes a .safetensors file of a pickle: python convert_pickle.py FILE

For embeddings, LoRAs, VAEs and checkpoints (.pt, .bin, .ckpt, .pth, or a pickle that is called .safetensors). The file is
read with weights_only=True: it may hold numbers and names, and whatever else is in it is refused, not run. The new file
lies beside the old one, which stays. The nodes of Diffusers Relay never run this: you do, in a terminal.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

WRAPPERS = ("state_dict", "string_to_param", "params_ema", "params", "model_state_dict", "module")
"""Where programs put the tensors of a file that says more than these."""
LEAST_TORCH = (2, 6)
"""Before it, weights_only=True could be got round (CVE-2025-32434)."""


def convert(file: Path, name: Path) -> int:
    """Writes the tensors of ``file`` to ``name``; says how many there are.

    Raises:
        ValueError: in plain words, whatever stands against it.
    """
    import torch
    from safetensors.torch import save_file

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < LEAST_TORCH:
        raise ValueError(f"PyTorch {torch.__version__} can't read a pickle safely. Update it to 2.6 or newer.")
    if name.exists():
        raise ValueError(f"{name} is there already. Delete it, or give another name: convert_pickle.py FILE NAME")
    try:
        with file.open("rb") as opened:  # by its path, one that is called .safetensors would be read as that
            content = torch.load(opened, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{file} was not read: it is no file of PyTorch's, is damaged, or holds more than numbers and names, which could be code. "
            f"Take the .safetensors file that its author publishes. ({first})"
        ) from None
    tensors = tensors_in(content)
    if not tensors:
        raise ValueError(f"{file} holds no tensors that have names.")
    save_file(tensors, name)
    return len(tensors)


def tensors_in(content: Any) -> dict[str, Any]:
    """The tensors of a file's content by name, each in memory of its own."""
    import torch

    if isinstance(content, torch.Tensor):
        return {"emb_params": content.detach().clone(memory_format=torch.contiguous_format)}
    if not isinstance(content, dict):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict) and (inner := tensors_in(content[wrapper])):
            # A1111 calls an embedding "*" in a pickle, and "emb_params" in a safetensors file.
            return {"emb_params": inner["*"]} if set(inner) == {"*"} else inner
    return {
        str(name): value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="the pickle")
    parser.add_argument("name", type=Path, nargs="?", help="of the new file; FILE.safetensors where it is left out")
    given = parser.parse_args()
    name = given.name or given.file.with_suffix(".safetensors")
    if name == given.file:
        name = given.file.with_name(f"{given.file.stem}_converted.safetensors")
    try:
        count = convert(given.file, name)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{name}: {count} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
