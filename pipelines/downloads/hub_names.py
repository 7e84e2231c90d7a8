"""What the hub may be asked for, and which names of files a repository may have."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..base.errors import RelayError
from ..files.model_files import short

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
REPO_ID = re.compile(rf"{_NAME}(?:/{_NAME})?")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
MAX_REPO_ID_LENGTH = 96
UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
DRIVE = re.compile(r"[A-Za-z]:")


def check_repo_id(repo_id: str) -> None:
    """
    Raises:
        RelayError: it is no ``owner/name`` or ``name``; a path or an address is neither.
    """
    if (
        not REPO_ID.fullmatch(repo_id)
        or ".." in repo_id
        or "--" in repo_id
        or repo_id.endswith(".git")
        or len(repo_id) > MAX_REPO_ID_LENGTH
    ):
        raise RelayError(
            f"repo_id: {repo_id!r} is not the id of a hub model. An id is owner/name, of letters, digits, '-', '_' and '.', "
            f"such as stable-diffusion-v1-5/stable-diffusion-v1-5. For a folder of this machine use Load Diffusers Model."
        )


def check_revision(revision: str) -> None:
    """
    Raises:
        RelayError: it is no name of a branch, tag or commit.
    """
    if not REVISION.fullmatch(revision) or ".." in revision or "//" in revision:
        raise RelayError(
            f"{revision!r} is not a revision: give a branch, a tag or a commit, or leave it empty for the main branch."
        )


def check_names(names: Iterable[str], title: str) -> None:
    """
    Raises:
        RelayError: the name of a file would lead out of its place in the cache, on this system or on another.
    """
    for name in names:
        parts = name.split("/")
        if (
            not name.isprintable()
            or "\\" in name
            or any(part in ("", ".", "..") or DRIVE.match(part) for part in parts)
        ):
            raise RelayError(
                f"{title} has a file {short(name)}, whose name leads out of the repository. Nothing was fetched: don't use this repository."
            )
