"""The names of the model choice: folders of models/diffusers, then files of models/checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

FOLDER, CHECKPOINT = " (folder)", " (checkpoint)"
SAFE = (".safetensors", ".sft")


def shown(folders: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    """What the choice lists. Pickles are not in it; a name that a folder and a file share is there twice, with what it is."""
    safe = [name for name in files if name.lower().endswith(SAFE)]
    return [name + FOLDER if name in safe else name for name in folders] + [
        name + CHECKPOINT if name in folders else name for name in safe
    ]


def accepted(folders: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    """Every value that is taken -> its path: more than the listed ones.

    A plain name stays valid when another model gets it too: it is the folder, as it was when only folders were listed. A
    pickle's name is taken as well, to be refused with the way to convert it.
    """
    return {
        **{name + FOLDER: path for name, path in folders.items()},
        **{name + CHECKPOINT: path for name, path in files.items()},
        **files,
        **folders,
    }
