"""Reads what a prompt's nodes have saved, from the host's answer to /history."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import BadPicture, RowFault
from .pictures import SUFFIXES, checked_picture

SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
DISK_IS_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|not enough space on the disk|\[Errno (28|122)\]"
)
MOST_TEXT = 2000


def raise_for_error(entry: Mapping[str, Any]) -> None:
    """Raises RowFault if a node has failed, and OSError if that was because the disk is full."""
    status = entry.get("status") or {}
    if status.get("status_str") == "success":
        return
    messages = dict(status.get("messages") or ())
    error = messages.get("execution_error")
    if error is None:
        raise RowFault("The run was interrupted." if "execution_interrupted" in messages else "The run failed.")
    text = str(error.get("exception_message", "")).strip()
    if DISK_IS_FULL.search(text):
        raise OSError(errno.ENOSPC, f"node {error.get('node_id')} ({error.get('node_type')}): {text[:MOST_TEXT]}")
    raise RowFault(
        f"Node {error.get('node_id')} ({error.get('node_type')}): {error.get('exception_type')}: {text[:MOST_TEXT]}"
    )


def refusal(status: int, reply: Mapping[str, Any]) -> str:
    """What a host says of a prompt that it does not take."""
    found = []
    for id, node in (reply.get("node_errors") or {}).items():
        for one in node.get("errors", ()):
            found.append(f"node {id} ({node.get('class_type')}): {one.get('message')}: {one.get('details')}")
    error = reply.get("error")
    general = error.get("message", "") if isinstance(error, Mapping) else str(error or f"HTTP {status}, with no reason")
    return f"ComfyUI does not take the row: {'; '.join(found) or general}"[:MOST_TEXT]


def saved_files(entry: Mapping[str, Any], kind: str) -> Iterator[tuple[str, str]]:
    """(node id, relative path) of each file that the nodes name, of the kind "output" or "temp", in order."""
    for id, output in (entry.get("outputs") or {}).items():
        for files in output.values():
            for one in files if isinstance(files, list) else ():
                if isinstance(one, Mapping) and one.get("type") == kind and one.get("filename"):
                    yield id, str(Path(str(one.get("subfolder") or "")) / str(one["filename"]))


def inside(folder: Path, name: str) -> Path:
    """A file that a node names. Raises RowFault if it is outside of the folder."""
    file = (folder / name).resolve()
    if not file.is_relative_to(folder):
        raise RowFault(f"A node names the file {name}, which is outside of its folder.")
    return file


def read_outputs(entry: Mapping[str, Any], folder: Path) -> list[tuple[str, bytes, str]]:
    """(node id, content, suffix) of each saved file. Pictures are decoded whole. Raises RowFault if there is none, or a bad one."""
    found = []
    for id, name in dict.fromkeys(saved_files(entry, "output")):
        file = inside(folder, name)
        try:
            if file.suffix.lower() in SUFFIXES:
                checked_picture(file)
            data = file.read_bytes()
        except (BadPicture, FileNotFoundError) as error:
            raise RowFault(f"Node {id} has saved {name}, which is missing or no whole picture: {error}") from error
        if not data or not SUFFIX.fullmatch(file.suffix):
            raise RowFault(f"Node {id} has saved {name}, which is empty or has no kind.")
        found.append((id, data, file.suffix.lower()))
    if not found:
        raise RowFault("The row has saved no file. The workflow needs a node that does, such as Save Image.")
    return found
