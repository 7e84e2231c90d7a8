"""Small weight files beside a model, LoRAs and embeddings: refused by what they are, before a tensor is read."""

from __future__ import annotations

from pathlib import Path

from .errors import RelayError

HOW_TO_CONVERT = (
    "Convert it once, on a machine where you trust its author: "
    "`safetensors.torch.save_file(torch.load(file, weights_only=True), name)`."
)


def check_safetensors(path: Path, input_name: str, title: str) -> None:
    """Refuses what is not a whole safetensors file.

    Args:
        path: the file.
        input_name: the node's input, for the message.
        title: what messages call the file.

    Raises:
        RelayError: a pickle, a git-lfs pointer, a damaged or cut file, or none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            return
    except (SafetensorError, OSError) as error:
        problem = f"is damaged or cut short ({error}): download it anew"
        try:
            with path.open("rb") as file:
                start = file.read(32)
        except OSError:
            start = b""
        if start.startswith(b"version https://git-lfs"):
            problem = "is a git-lfs pointer, not the file itself: run `git lfs pull` there"
        elif start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            problem = f"is a pickle under another name, which can run any code when it is read, and is not read. {HOW_TO_CONVERT}"
        raise RelayError(f"{input_name}: {title} {problem.rstrip('.')}.") from error
