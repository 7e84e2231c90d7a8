"""Checks repo ids, revisions and the names of files in a repo."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..base.errors import RelayError
from ..files.model_files import short

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
REPO_ID = re.compile(rf"{_NAME}(?:/{_NAME})?")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
MAX_REPO_ID_LENGTH = 96
MAX_SUBFOLDER_LENGTH = 200
NOT_IN_FOLDERS = frozenset('\\:*?"<>|')
UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
DRIVE = re.compile(r"[A-Za-z]:")


def check_repo_id(repo_id: str) -> None:
    """
    Raises:
        RelayError: it is not ``owner/name`` or ``name``, but e.g. a path or a URL.
    """
    if (
        not REPO_ID.fullmatch(repo_id)
        or ".." in repo_id
        or "--" in repo_id
        or repo_id.endswith(".git")
        or len(repo_id) > MAX_REPO_ID_LENGTH
    ):
        raise RelayError(
            f"repo_id: {repo_id!r} is not the id of a hub model. An id is owner/name, with letters, digits, '-', '_' and '.', "
            f"such as stable-diffusion-v1-5/stable-diffusion-v1-5. For a folder on this machine, use Load Diffusers Model."
        )


def check_revision(revision: str) -> None:
    """
    Raises:
        RelayError: it can't be the name of a branch, tag or commit.
    """
    if not REVISION.fullmatch(revision) or ".." in revision or "//" in revision:
        raise RelayError(
            f"revision: {revision!r} is not a revision. Enter a branch, a tag or a commit, or leave it empty for the main branch."
        )


def check_subfolder(subfolder: str) -> None:
    """
    Raises:
        RelayError: it is not the name of a folder inside a repository. Empty, for the repository itself, passes.
    """
    if subfolder and (
        len(subfolder) > MAX_SUBFOLDER_LENGTH
        or not subfolder.isprintable()
        or not all(_is_folder(part) for part in subfolder.split("/"))
    ):
        raise RelayError(
            f"subfolder: {short(subfolder)} is not a folder of a repository. Enter its name, such as fp16 or controlnet/depth, without '..', "
            "a backslash, or a slash at its start or end. Leave it empty for the top level."
        )


def _is_folder(part: str) -> bool:
    """Whether it names the same folder on every operating system."""
    return part.strip(" ") == part and not part.endswith(".") and part != "" and not set(part) & NOT_IN_FOLDERS


def check_names(names: Iterable[str], title: str) -> None:
    """
    Raises:
        RelayError: the name of a file would lead outside its folder in the cache, on this or another operating system.
    """
    for name in names:
        parts = name.split("/")
        if (
            not name.isprintable()
            or "\\" in name
            or any(part in ("", ".", "..") or DRIVE.match(part) for part in parts)
        ):
            raise RelayError(
                f"{title} has a file {short(name)}, whose name leads outside the repository. Nothing was downloaded. Don't use this repository."
            )
