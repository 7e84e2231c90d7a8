"""Lays a row's pictures into the host's input folder, and makes the prompt that the host gets."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path

from .errors import BadPicture, RowFault
from .jobs import InputPicture, Job, RunSpec
from .pictures import checked_picture
from .ui_convert import Prompt

HASH_IN_NAME = 16


def lay_down(picture: InputPicture, folder: Path) -> Path:
    """The picture in the host's input folder, checked. Raises RowFault if it is missing, damaged, or no picture.

    Its name is made from its content, so that the host knows a picture that it had before.
    """
    try:
        data = Path(picture.path).read_bytes() if picture.data is None else picture.data
    except FileNotFoundError as error:
        raise RowFault(f"There is no picture {picture.path}.") from error
    digest = hashlib.sha256(data).hexdigest()[:HASH_IN_NAME]
    file = folder / f"row-{digest}{Path(picture.path).suffix.lower()}"
    file.write_bytes(data)
    try:
        checked_picture(file)
    except BadPicture as error:
        file.unlink()
        raise RowFault(str(error).replace(str(file), picture.path)) from error
    return file


def row_prompt(run: RunSpec, job: Job, sent: Mapping[InputPicture, str], prefix: str) -> Prompt:
    """The run's prompt with a row's values.

    Args:
        sent: {a picture of the job: its name in the host's input folder}.
        prefix: the beginning of the names of all files that the row saves. It must be a new one: the host answers a prompt that is equal
            to the one before with the old names.
    """
    prompt = copy.deepcopy(run.prompt)
    for id, input, value in job.inputs:
        prompt[id]["inputs"][input] = value
    for picture, name in sent.items():
        for id, input in picture.targets:
            prompt[id]["inputs"][input] = name
    for id in run.saving:
        prompt[id]["inputs"]["filename_prefix"] = prefix
    return prompt
